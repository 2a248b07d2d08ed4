"""CPU, memory, limits and disks of fake machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import fake_machine as fake
from vlwm.core.hardware.host import CpuMeter, read_host, usable_workers
from vlwm.core.hardware.machine import Machine
from vlwm.core.hardware.mounts import disk_space, mount_of, read_mounts, resolved

GIB = 1 << 30
V1 = "4:memory:/docker/ab\n3:pids:/docker/ab\n2:cpuacct:/docker/ab\n1:cpu:/docker/ab\n0::/\n"


@pytest.fixture
def box(tmp_path: Path) -> fake.FakeMachine:
    return fake.plain_machine(tmp_path)


def test_a_plain_box_has_no_limits(box: fake.FakeMachine) -> None:
    host = read_host(Machine(box.root, {}))
    assert (host.cpus, host.cpu_quota, host.usable_cpus) == (16, None, 16.0)
    assert host.ram_bytes == host.usable_ram_bytes == 64 * GIB and host.ram_limit_bytes is None
    assert host.ram_used_bytes == 32 * GIB and host.shm_bytes == 32 * GIB
    assert host.pids_limit is None and not host.in_container


def test_unknown_is_none(tmp_path: Path) -> None:
    host = read_host(Machine(tmp_path, {}))
    assert (host.cpus, host.usable_cpus, host.ram_bytes, host.usable_ram_bytes) == (None,) * 4
    assert host.shm_bytes is None and not host.in_container
    assert usable_workers(Machine(tmp_path, {})) == 1
    assert read_mounts(Machine(tmp_path, {})) == ()
    assert CpuMeter(Machine(tmp_path, {})).read() is None


def test_limits_of_cgroup_v2_and_its_parents(box: fake.FakeMachine) -> None:
    box.write(
        {
            "/proc/self/cgroup": "0::/pod/box\n",
            "/sys/fs/cgroup/pod/cpu.max": "350000 100000\n",
            "/sys/fs/cgroup/pod/box/cpu.max": "max 100000\n",
            "/sys/fs/cgroup/pod/box/memory.max": f"{8 * GIB}\n",
            "/sys/fs/cgroup/pod/memory.max": "max\n",
            "/sys/fs/cgroup/pod/box/memory.current": f"{3 * GIB}\n",
            "/sys/fs/cgroup/pod/box/memory.stat": f"anon 5\ninactive_file {GIB}\n",
            "/sys/fs/cgroup/pod/box/pids.max": "512\n",
        }
    )
    host = read_host(Machine(box.root, {}))
    assert (host.cpu_quota, host.usable_cpus) == (3.5, 3.5)
    assert usable_workers(Machine(box.root, {})) == 3
    assert host.usable_ram_bytes == 8 * GIB and host.ram_used_bytes == 2 * GIB
    assert host.pids_limit == 512


def test_limits_of_cgroup_v1_seen_from_inside(box: fake.FakeMachine) -> None:
    group = "/sys/fs/cgroup"  # a container sees its own group at the top
    box.write(
        {
            "/proc/self/cgroup": V1,
            f"{group}/cpu/cpu.cfs_quota_us": "4600000\n",
            f"{group}/cpu/cpu.cfs_period_us": "100000\n",
            f"{group}/memory/memory.limit_in_bytes": f"{2 * GIB}\n",
            f"{group}/memory/memory.usage_in_bytes": f"{GIB}\n",
            f"{group}/pids/pids.max": "max\n",
        }
    )
    host = read_host(Machine(box.root, {}))
    assert (host.cpu_quota, host.usable_cpus) == (46.0, 16.0)
    assert host.ram_limit_bytes == 2 * GIB and host.ram_used_bytes == GIB
    assert host.pids_limit is None


def test_no_quota_and_no_limit_of_cgroup_v1(box: fake.FakeMachine) -> None:
    box.write(
        {
            "/proc/self/cgroup": V1,
            "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
            "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
        }
    )
    host = read_host(Machine(box.root, {}))
    assert host.cpu_quota is None and host.ram_limit_bytes is None


@pytest.mark.parametrize(("ranges", "count"), [("0-3,8", 5), ("7", 1), ("0-383", 384), ("?", None)])
def test_affinity(box: fake.FakeMachine, ranges: str, count: int | None) -> None:
    box.write({"/proc/self/status": f"Cpus_allowed_list:\t{ranges}\n"})
    assert read_host(Machine(box.root, {})).cpus == count


def test_containers_are_known_by_file_variable_or_layer(box: fake.FakeMachine) -> None:
    assert read_host(Machine(box.root, {"container": "podman"})).in_container
    box.write({"/proc/self/mountinfo": fake.mountinfo(*fake.CONTAINER_MOUNTS)})
    host = read_host(Machine(box.root, {}))
    assert host.in_container and host.shm_bytes == 16 * GIB


def test_mount_table(box: fake.FakeMachine) -> None:
    box.write(
        {
            "/proc/self/mountinfo": "damaged line\n"
            + fake.mountinfo(
                ("/", "overlay", "overlay", ""),
                ("/data", "ext4", "/dev/sdb", ""),
                ("/data/my volume", "nfs4", "host:/x", ""),
                ("/data", "xfs", "/dev/sdc", ""),
            )
        }
    )
    mounts = read_mounts(Machine(box.root, {}))
    kinds = {p: (m.kind if (m := mount_of(p, mounts)) else None) for p in
             ("/home", "/data", "/database", "/data/my volume/a", "/data/b")}  # fmt: skip
    assert kinds == {
        "/home": "overlay", "/data": "xfs", "/database": "overlay",
        "/data/my volume/a": "nfs4", "/data/b": "xfs",
    }  # fmt: skip
    assert mounts[0].container_layer and mounts[2].network and not mounts[1].network


def test_links_are_followed_inside_the_root(box: fake.FakeMachine) -> None:
    (box.root / "volume/data").mkdir(parents=True)
    (box.root / "home").symlink_to(box.root / "volume")
    assert resolved("/home/data", Machine(box.root, {})) == "/volume/data"


def test_space_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    space = disk_space(tmp_path / "a/b/c", Machine())
    assert space is not None and 0 < space.free_bytes <= space.total_bytes


def test_cpu_meter_counts_the_quota(box: fake.FakeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("vlwm.core.hardware.host.time.monotonic", lambda: clock[0])
    box.write(
        {
            "/sys/fs/cgroup/cpu.max": "200000 100000\n",
            "/sys/fs/cgroup/cpu.stat": "usage_usec 1000000\n",
        }
    )
    meter = CpuMeter(Machine(box.root, {}))
    assert meter.read() is None
    clock[0] += 2.0
    box.write({"/sys/fs/cgroup/cpu.stat": "usage_usec 4000000\n"})
    assert meter.read() == pytest.approx(0.75)  # 3 of 2 x 2 processor seconds


def test_cpu_meter_of_a_whole_machine(box: fake.FakeMachine) -> None:
    box.write({"/proc/stat": "cpu  100 0 100 800 0 0 0 0 0 0\ncpu0 1 1\n"})
    meter = CpuMeter(Machine(box.root, {}))
    meter.read()
    box.write({"/proc/stat": "cpu  150 0 110 840 0 0 0 0 0 0\ncpu0 1 1\n"})
    assert meter.read() == pytest.approx(0.6)

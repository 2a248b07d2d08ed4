"""Whole fake machines: a root folder, an environment, and an NVML library built with gcc."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

NVML_SOURCE = r"""
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
/* FAKE_NVML: the code that nvmlInit answers. FAKE_GPUS: one GPU a '|', values after ';':
   "@FILE" reads that text from a file, each time.
   name;uuid;total MiB;free MiB;SM*10;util;temperature;mW;limit mW;MIG instances;
   bits of what slows it;number of compute processes (1 GiB each, ids from 4000).
   A MIG instance is handle 100*(gpu+1)+part and owns an equal share. "-" means unsupported. */
typedef long handle;
static char field_buffer[256];
static char file_buffer[4096];
static const char *spec(void) {
  const char *s = getenv("FAKE_GPUS");
  if (!s || *s != '@') return s ? s : "";
  FILE *f = fopen(s + 1, "r");
  if (!f) return "";
  file_buffer[fread(file_buffer, 1, sizeof file_buffer - 1, f)] = 0;
  fclose(f);
  return file_buffer;
}
static int owner(handle h) { return h >= 100 ? h / 100 - 1 : h - 1; }
static const char *value(handle h, int which) {
  const char *s = spec();
  for (int i = owner(h); i > 0; i--) { s = strchr(s, '|'); if (!s) return "-"; s++; }
  for (; which > 0; which--) { s = strchr(s, ';'); if (!s) return "-"; s++; }
  size_t n = strcspn(s, ";|");
  memcpy(field_buffer, s, n); field_buffer[n] = 0;
  return field_buffer;
}
static int number(handle h, int which, unsigned *out) {
  const char *v = value(h, which);
  if (!strcmp(v, "-")) return 3;
  *out = (unsigned)atol(v); return 0;
}
static int parts(handle h) { return atoi(value(h, 9)); }
int nvmlInitWithFlags(unsigned f) { const char *c = getenv("FAKE_NVML"); return c ? atoi(c) : 0; }
int nvmlShutdown(void) { return 0; }
const char *nvmlErrorString(int code) {
  if (code == 18) return "Driver/library version mismatch";
  if (code == 9) return "Driver Not Loaded";
  if (code == 15) return "GPU is lost";
  return "some answer";
}
int nvmlSystemGetDriverVersion(char *out, unsigned n) {
  const char *v = getenv("FAKE_DRIVER"); snprintf(out, n, "%s", v ? v : "570.124.06"); return 0; }
int nvmlSystemGetCudaDriverVersion(int *out) {
  const char *v = getenv("FAKE_CUDA"); *out = v ? atoi(v) : 12080; return 0; }
int nvmlDeviceGetCount_v2(unsigned *out) {
  const char *s = spec(); *out = *s ? 1 : 0;
  for (; *s; s++) *out += *s == '|';
  return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned i, handle *out) {
  *out = i + 1; return strcmp(value(i + 1, 0), "lost") ? 0 : 15; }
int nvmlDeviceGetName(handle h, char *out, unsigned n) {
  if (h >= 100) snprintf(out, n, "%s MIG 3g.%dgb", value(h, 0), 20);
  else snprintf(out, n, "%s", value(h, 0));
  return 0; }
int nvmlDeviceGetUUID(handle h, char *out, unsigned n) {
  if (h >= 100) snprintf(out, n, "MIG-%ld", h); else snprintf(out, n, "%s", value(h, 1));
  return 0; }
int nvmlDeviceGetMemoryInfo(handle h, unsigned long long *out) {
  unsigned total, free_mib; int share = h >= 100 ? parts(h) : 1;
  if (number(h, 2, &total) || number(h, 3, &free_mib)) return 3;
  out[0] = ((unsigned long long)total << 20) / share;
  out[1] = ((unsigned long long)free_mib << 20) / share;
  out[2] = out[0] - out[1]; return 0; }
int nvmlDeviceGetCudaComputeCapability(handle h, int *major, int *minor) {
  unsigned sm; if (number(h, 4, &sm)) return 3;
  *major = sm / 10; *minor = sm % 10; return 0; }
int nvmlDeviceGetUtilizationRates(handle h, unsigned *out) {
  out[1] = 0; return h >= 100 ? 3 : number(h, 5, out); }
int nvmlDeviceGetTemperature(handle h, int sensor, unsigned *out) { return number(h, 6, out); }
int nvmlDeviceGetPowerUsage(handle h, unsigned *out) { return number(h, 7, out); }
int nvmlDeviceGetEnforcedPowerLimit(handle h, unsigned *out) { return number(h, 8, out); }
int nvmlDeviceGetCurrentClocksThrottleReasons(handle h, unsigned long long *out) {
  unsigned bits; if (number(h, 10, &bits)) return 3; *out = bits; return 0; }
struct process { unsigned pid; unsigned long long bytes; unsigned gi, ci; };
int nvmlDeviceGetComputeRunningProcesses_v3(handle h, unsigned *count, struct process *out) {
  unsigned have; if (number(h, 11, &have)) return 3;
  if (!out || *count < have) { *count = have; return have ? 7 : 0; }
  for (unsigned i = 0; i < have; i++)
    out[i] = (struct process){4000 + i, 1ULL << 30, 0xFFFFFFFF, 0xFFFFFFFF};
  *count = have; return 0; }
int nvmlDeviceGetMigMode(handle h, unsigned *now, unsigned *later) {
  *now = *later = parts(h) > 0; return 0; }
int nvmlDeviceGetMaxMigDeviceCount(handle h, unsigned *out) { *out = 7; return 0; }
int nvmlDeviceGetMigDeviceHandleByIndex(handle h, unsigned i, handle *out) {
  *out = 100 * h + i; return i < (unsigned)parts(h) ? 0 : 6; }
"""


def build_nvml(folder: Path) -> Path:
    """Build the simulated library into `folder`; skips the test where there is no gcc."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc to build the simulated NVML library")
    source = folder / "nvml.c"
    source.write_text(NVML_SOURCE)
    target = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-w", "-Wl,-soname,libnvidia-ml.so.1"]
    subprocess.run(["gcc", *flags, "-o", str(target), str(source)], check=True)
    return folder


A100_80 = "NVIDIA A100-SXM4-80GB;GPU-a1;81920;80994;80;97;64;312000;400000;0"
A100_40 = "NVIDIA A100-SXM4-40GB;GPU-a2;40960;40326;80;12;41;88000;400000;0"
RTX_4090 = "NVIDIA GeForce RTX 4090;GPU-b1;24564;24101;89;0;38;21000;450000;0"
RTX_4090_DESKTOP = "NVIDIA GeForce RTX 4090;GPU-b2;24564;22600;89;3;45;41000;450000;0"
RTX_3090 = "NVIDIA GeForce RTX 3090;GPU-c1;24576;24233;86;0;33;19000;350000;0"
RTX_3080 = "NVIDIA GeForce RTX 3080;GPU-d1;10240;9996;86;0;33;19000;320000;0"
T4 = "Tesla T4;GPU-e1;15360;15095;75;0;33;9000;70000;0"
MIG = "NVIDIA A100-SXM4-40GB;GPU-f1;40960;40326;80;-;41;88000;400000;2"
UNKNOWN = "NVIDIA GB10;GPU-g1;-;-;121;0;-;-;-;0"


@dataclass
class FakeMachine:
    """Files below `root` and the environment of its shell."""

    root: Path
    environ: dict[str, str] = field(default_factory=dict)

    def write(self, files: dict[str, str]) -> FakeMachine:
        """Write files by their absolute names on the machine."""
        for name, text in files.items():
            path = self.root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return self


def mountinfo(*rows: tuple[str, str, str, str]) -> str:
    """A mount table from (point, type, source, super options)."""
    lines = [
        f"{20 + i} 1 0:{i} / {point.replace(' ', chr(92) + '040')} rw,relatime - "
        f"{kind} {source} {options or 'rw'}"
        for i, (point, kind, source, options) in enumerate(rows)
    ]
    return "\n".join(lines) + "\n"


CONTAINER_MOUNTS = (
    ("/", "overlay", "overlay", ""),
    ("/proc", "proc", "proc", ""),
    ("/dev/shm", "tmpfs", "shm", "rw,size=16777216k"),
)


def plain_machine(root: Path, *, cpus: int = 16, ram_gib: int = 64) -> FakeMachine:
    """A Linux box without limits, with ordinary disks."""
    return FakeMachine(root).write(
        {
            "/proc/self/status": f"Name:\tpython\nCpus_allowed_list:\t0-{cpus - 1}\n",
            "/proc/meminfo": f"MemTotal: {ram_gib << 20} kB\nMemAvailable: {ram_gib << 19} kB\n",
            "/proc/self/mountinfo": mountinfo(
                ("/", "ext4", "/dev/vda1", ""),
                ("/proc", "proc", "proc", ""),
                ("/dev/shm", "tmpfs", "tmpfs", f"rw,size={ram_gib << 19}k"),
            ),
            "/proc/1/environ": "",
            "/etc/environment": "",
        }
    )


def shell(library: Path | None, gpus: str = "", **more: str) -> dict[str, str]:
    """A process environment in which NVML is the simulated one; `None` hides it."""
    kept = {k: os.environ[k] for k in ("PATH", "HOME", "LANG", "PYTHONPATH") if k in os.environ}
    if library is not None:
        kept["LD_LIBRARY_PATH"] = str(library)
    return {**kept, "FAKE_GPUS": gpus, **more}


def torch_stub(
    folder: Path,
    *,
    version: str = "2.9.1+cu128",
    cuda: str | None = "12.8",
    arch: str = "sm_75 sm_80 sm_86 sm_90 sm_100 sm_120 compute_120",
    available: bool = True,
) -> Path:
    """A package `torch` that only says what it was built for; its folder goes into PYTHONPATH."""
    package = folder / "torch"
    package.mkdir(parents=True)
    package.joinpath("__init__.py").write_text(
        f"""
class version: cuda = {cuda!r}
__version__ = {version!r}
class _C: _cuda_getArchFlags = staticmethod(lambda: {arch!r})
class cuda:
    is_available = staticmethod(lambda: {available!r})
    @staticmethod
    def init(): raise RuntimeError("the driver on your system is too old\\nsecond line")
"""
    )
    return folder

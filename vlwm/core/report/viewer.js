"use strict";
/* A window of occupancy in WebGL 2: orbit with mouse, touch or keys, step through time, cut heights.
   Cells are instanced cubes; only those with a free neighbour are drawn. */
(() => {
  const root = document.getElementById("viewer");
  if (!root) return;
  const canvas = root.querySelector("canvas");
  const gl = canvas.getContext("webgl2", { antialias: true });
  if (!gl || typeof DecompressionStream === "undefined") return;
  document.documentElement.classList.add("webgl");

  const grid = JSON.parse(document.getElementById("grid").textContent);
  const windows = [...document.querySelectorAll("script.window")].map((s) => JSON.parse(s.textContent));
  const at = (id) => document.getElementById(id);
  const ui = { which: at("v-window"), show: at("v-show"), forecast: at("v-forecast"), time: at("v-time"),
    cut: at("v-cut"), play: at("v-play"), label: at("v-label"), counts: at("v-counts") };

  const CELL_VS = `#version 300 es
precision highp float; precision highp int;
layout(location=0) in uvec4 cell;
uniform mat4 view; uniform vec3 lower, size; uniform vec4 ego; uniform float top, cut, ground;
out vec3 colour; out float light;
vec3 ramp(float t) {
  vec3 c = mix(vec3(.27,.23,.54), vec3(.13,.56,.55), smoothstep(0., .45, t));
  return mix(c, vec3(.99,.88,.20), smoothstep(.45, 1., t));
}
const int FACE[36] = int[36](0,2,1,1,2,3, 4,5,6,5,7,6, 0,1,4,1,5,4, 2,6,3,3,6,7, 0,4,2,2,4,6, 1,3,5,3,7,5);
const vec3 NORMAL[6] = vec3[6](vec3(0,0,-1), vec3(0,0,1), vec3(0,-1,0), vec3(0,1,0), vec3(-1,0,0), vec3(1,0,0));
void main() {
  int corner = FACE[gl_VertexID];
  vec3 c = vec3(corner & 1, (corner >> 1) & 1, (corner >> 2) & 1);
  vec3 p = lower + (vec3(cell.xyz) + .5 + (c - .5) * (cell.w == 4u ? .4 : .94)) * size;
  float height = lower.z + (float(cell.z) + 1.) * size.z;
  float s = sin(ego.w), k = cos(ego.w);
  vec3 world = vec3(k * p.x - s * p.y, s * p.x + k * p.y, p.z) + ego.xyz;
  vec3 n = NORMAL[gl_VertexID / 6];
  light = .62 + .38 * max(0., dot(vec3(k * n.x - s * n.y, s * n.x + k * n.y, n.z), normalize(vec3(.35, -.5, .8))));
  colour = cell.w == 0u ? (height <= ground ? vec3(.80,.82,.84) : ramp(clamp(height / top, 0., 1.)))
    : cell.w == 1u ? vec3(.80) : cell.w == 2u ? vec3(0., .45, .70)
    : cell.w == 3u ? vec3(.84, .37, 0.) : vec3(.62, .52, .76);
  gl_Position = view * vec4(world, 1.);
  if (height - size.z >= cut) gl_Position = vec4(2., 2., 2., 1.);
}`;
  const CELL_FS = `#version 300 es
precision mediump float; in vec3 colour; in float light; out vec4 o;
void main() { o = vec4(colour * light, 1.); }`;
  const LINE_VS = `#version 300 es
layout(location=0) in vec3 p; uniform mat4 view; void main() { gl_Position = view * vec4(p, 1.); gl_PointSize = 7.; }`;
  const LINE_FS = `#version 300 es
precision mediump float; uniform vec3 tint; out vec4 o; void main() { o = vec4(tint, 1.); }`;

  const program = (vs, fs) => {
    const made = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, vs], [gl.FRAGMENT_SHADER, fs]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(made, shader);
    }
    gl.linkProgram(made);
    return made;
  };
  const cells = program(CELL_VS, CELL_FS), lines = program(LINE_VS, LINE_FS);
  const where = (p, ...names) => Object.fromEntries(names.map((n) => [n, gl.getUniformLocation(p, n)]));
  const cu = where(cells, "view", "lower", "size", "ego", "top", "cut", "ground");
  const lu = where(lines, "view", "tint");
  const cellArray = gl.createVertexArray(), cellBuffer = gl.createBuffer();
  const lineArray = gl.createVertexArray(), lineBuffer = gl.createBuffer();
  gl.bindVertexArray(cellArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, cellBuffer);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribIPointer(0, 4, gl.UNSIGNED_SHORT, 0, 0);
  gl.vertexAttribDivisor(0, 1);
  gl.bindVertexArray(lineArray);
  gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
  gl.enableVertexAttribArray(0);
  gl.vertexAttribPointer(0, 3, gl.FLOAT, false, 0, 0);

  const wide = Math.max(grid.shape[0] * grid.cell[0], grid.shape[1] * grid.cell[1]);
  const camera = { azimuth: -2.25, height: 0.62, distance: Math.max(15, 1.45 * wide) };
  let now = null, count = 0, dirty = true, timer = 0;

  const inflate = async (text) => {
    const raw = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const stream = new Blob([raw]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };
  const frameOf = (number) => {
    const bytes = Math.ceil(grid.shape[0] * grid.shape[1] * grid.shape[2] / 8);
    return now.bits.subarray(number * bytes, (number + 1) * bytes);
  };
  const shownFrames = () => {
    const t = +ui.time.value, past = now.past, future = now.times.length - past;
    const known = now.known ? frameOf(past + future * (1 + now.forecasts.length) + t) : null;
    if (t < past) return { truth: frameOf(t), forecast: null, known };
    const kind = Math.max(0, now.forecasts.indexOf(ui.forecast.value));
    return { truth: frameOf(t), forecast: frameOf(past + future * (1 + kind) + t - past), known };
  };
  const rebuild = () => {
    const { truth, forecast, known } = shownFrames();
    const [X, Y, Z] = grid.shape, bit = (b, i) => (b[i >> 3] >> (i & 7)) & 1;
    const wanted = ui.show.value, mode = forecast || (wanted === "unknown" && known) ? wanted : "truth";
    const unknown = (i) => known !== null && !bit(known, i);
    const kind = mode === "truth" ? (i) => (bit(truth, i) ? 0 : -1)
      : mode === "unknown" ? (i) => (bit(truth, i) ? 0 : unknown(i) ? 4 : -1)
      : mode === "forecast" ? (i) => (bit(forecast, i) ? 0 : -1)
      : (i) => { if (unknown(i)) return bit(forecast, i) ? 4 : -1; const t = bit(truth, i), f = bit(forecast, i); return t ? (f ? 1 : 2) : f ? 3 : -1; };
    const flags = new Int8Array(X * Y * Z);
    let occupied = 0;
    for (let i = 0; i < flags.length; i++) { flags[i] = kind(i); if (flags[i] >= 0) occupied++; }
    const out = new Uint16Array(4 * occupied);
    const tally = [0, 0, 0, 0, 0];
    let n = 0, i = 0, top = 0;
    for (let x = 0; x < X; x++) for (let y = 0; y < Y; y++) for (let z = 0; z < Z; z++, i++) {
      const k = flags[i];
      if (k < 0) continue;
      tally[k]++;
      if (z > top) top = z;
      const same = (j) => flags[j] >= 0;
      if (k === 4 && mode === "unknown") {  // only where known free space begins: all of it hides the scene
        const open = (x && !same(i - Y * Z)) || (x < X - 1 && !same(i + Y * Z)) || (y && !same(i - Z))
          || (y < Y - 1 && !same(i + Z)) || (z && !same(i - 1)) || (z < Z - 1 && !same(i + 1));
        if (open) out.set([x, y, z, k], 4 * n++);
        continue;
      }
      if (x && y && z && x < X - 1 && y < Y - 1 && z < Z - 1 && same(i - Y * Z) && same(i + Y * Z)
        && same(i - Z) && same(i + Z) && same(i - 1) && same(i + 1)) continue;
      out.set([x, y, z, k], 4 * n++);
    }
    gl.bindBuffer(gl.ARRAY_BUFFER, cellBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, out.subarray(0, 4 * n), gl.DYNAMIC_DRAW);
    count = n;
    const s = now.times[+ui.time.value], when = s <= 0 ? `${(-s).toFixed(1)} s ago` : `${s.toFixed(1)} s ahead`;
    ui.label.textContent = `${when}, ${mode === "truth" && forecast === null ? "past" : mode}`;
    const share = 100 * tally[4] / flags.length;
    ui.counts.textContent = mode === "unknown" ? `${tally[0].toLocaleString("en")} occupied, ${share.toFixed(0)} % unknown`
      : mode === "difference" && known ? `${[1, 2, 3, 4].map((k) => tally[k].toLocaleString("en")).join(", ")} agreed, missed, false, not scored`
      : mode === "difference"
      ? `${tally[1].toLocaleString("en")} agreed, ${tally[2].toLocaleString("en")} missed, ${tally[3].toLocaleString("en")} false`
      : `${tally[0].toLocaleString("en")} occupied cells`;
    dirty = true;
  };

  const multiply = (a, b) => {
    const out = new Float32Array(16);
    for (let c = 0; c < 4; c++) for (let r = 0; r < 4; r++)
      for (let k = 0; k < 4; k++) out[4 * c + r] += a[4 * k + r] * b[4 * c + k];
    return out;
  };
  const viewOf = () => {
    const [tx, ty] = now.ego[+ui.time.value], tz = 0.1 * wide, { azimuth: a, height: h, distance: d } = camera;
    const eye = [tx + d * Math.cos(h) * Math.cos(a), ty + d * Math.cos(h) * Math.sin(a), tz + d * Math.sin(h)];
    const f = [tx - eye[0], ty - eye[1], tz - eye[2]].map((v) => v / d);
    const r = [f[1], -f[0], 0].map((v) => v / Math.hypot(f[0], f[1]));
    const u = [r[1] * f[2] - r[2] * f[1], r[2] * f[0] - r[0] * f[2], r[0] * f[1] - r[1] * f[0]];
    const dot = (p, q) => p[0] * q[0] + p[1] * q[1] + p[2] * q[2];
    const look = new Float32Array([r[0], u[0], -f[0], 0, r[1], u[1], -f[1], 0, r[2], u[2], -f[2], 0,
      -dot(r, eye), -dot(u, eye), dot(f, eye), 1]);
    const near = 1, far = 900, k = 1 / Math.tan(0.42), aspect = canvas.width / canvas.height;
    return multiply(new Float32Array([k / aspect, 0, 0, 0, 0, k, 0, 0, 0, 0, (far + near) / (near - far), -1,
      0, 0, 2 * far * near / (near - far), 0]), look);
  };
  const drawLine = (points, tint, kind) => {
    gl.uniform3fv(lu.tint, tint);
    gl.bindBuffer(gl.ARRAY_BUFFER, lineBuffer);
    gl.bufferData(gl.ARRAY_BUFFER, new Float32Array(points.flat()), gl.DYNAMIC_DRAW);
    gl.drawArrays(kind, 0, points.length);
  };
  const draw = () => {
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const wide = Math.round(canvas.clientWidth * ratio), tall = Math.round(canvas.clientHeight * ratio);
    if (canvas.width !== wide || canvas.height !== tall) { canvas.width = wide; canvas.height = tall; }
    gl.viewport(0, 0, wide, tall);
    gl.clearColor(0.96, 0.97, 0.98, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const view = viewOf(), t = +ui.time.value;
    gl.useProgram(cells);
    gl.uniformMatrix4fv(cu.view, false, view);
    gl.uniform3fv(cu.lower, grid.lower);
    gl.uniform3fv(cu.size, grid.cell);
    gl.uniform4fv(cu.ego, now.ego[t]);
    gl.uniform1f(cu.top, grid.top);
    gl.uniform1f(cu.cut, +ui.cut.value);
    gl.uniform1f(cu.ground, grid.ground);
    gl.bindVertexArray(cellArray);
    gl.drawArraysInstanced(gl.TRIANGLES, 0, 36, count);
    gl.useProgram(lines);
    gl.uniformMatrix4fv(lu.view, false, view);
    gl.bindVertexArray(lineArray);
    gl.disable(gl.DEPTH_TEST);
    const lift = (p, e) => [p[0], p[1], e];
    drawLine(now.path, [0.1, 0.1, 0.1], gl.LINE_STRIP);
    drawLine(now.path, [0.1, 0.1, 0.1], gl.POINTS);
    if (now.predicted && ui.forecast.value === "model") {
      const z = now.path[now.past - 1][2];
      const guess = [now.path[now.past - 1], ...now.predicted.map((p) => lift(p, z))];
      drawLine(guess, [0.84, 0.37, 0], gl.LINE_STRIP);
      drawLine(guess, [0.84, 0.37, 0], gl.POINTS);
    }
    drawLine([now.path[t]], [0.75, 0, 0.5], gl.POINTS);
    gl.bindVertexArray(null);
  };
  const loop = () => { if (dirty && now) { dirty = false; draw(); } requestAnimationFrame(loop); };

  const open = async (number) => {
    const chosen = windows[number];
    const bits = await inflate(chosen.bits);
    now = { ...chosen, bits, path: chosen.ego.map((e) => [e[0], e[1], Math.max(e[2], 0) + 2]) };
    ui.time.max = now.times.length - 1;
    if (ui.time.value === "" || +ui.time.value > +ui.time.max || !root.dataset.ready) ui.time.value = now.past + 1;
    for (const option of ui.show.options) if (option.value === "unknown") option.hidden = option.disabled = !now.known;
    if (!now.known && ui.show.value === "unknown") ui.show.value = "forecast";
    for (const option of ui.forecast.options) option.disabled = !now.forecasts.includes(option.value);
    rebuild();
    root.dataset.ready = "yes";
  };
  const step = (by) => {
    const last = +ui.time.max;
    ui.time.value = (+ui.time.value + by + last + 1) % (last + 1);
    rebuild();
  };
  ui.which.addEventListener("change", () => open(+ui.which.value));
  ui.time.addEventListener("input", rebuild);
  ui.show.addEventListener("change", rebuild);
  ui.forecast.addEventListener("change", rebuild);
  ui.cut.addEventListener("input", () => { dirty = true; });
  ui.play.addEventListener("click", () => {
    clearInterval(timer);
    timer = timer ? 0 : setInterval(() => step(1), 500);
    ui.play.textContent = timer ? "Pause" : "Play";
  });

  const turn = (dx, dy) => {
    camera.azimuth -= dx;
    camera.height = Math.min(1.55, Math.max(0.04, camera.height + dy));
    dirty = true;
  };
  const zoom = (by) => { camera.distance = Math.min(400, Math.max(12, camera.distance * by)); dirty = true; };
  const fingers = new Map();
  canvas.addEventListener("pointerdown", (e) => { fingers.set(e.pointerId, e); canvas.setPointerCapture(e.pointerId); });
  canvas.addEventListener("pointermove", (e) => {
    const before = fingers.get(e.pointerId);
    if (!before) return;
    if (fingers.size === 2) {
      const other = [...fingers.values()].find((f) => f.pointerId !== e.pointerId);
      const gap = (f) => Math.hypot(f.clientX - other.clientX, f.clientY - other.clientY) || 1;
      zoom(gap(before) / gap(e));
    } else turn((e.clientX - before.clientX) * 0.008, (e.clientY - before.clientY) * 0.008);
    fingers.set(e.pointerId, e);
  });
  for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (e) => fingers.delete(e.pointerId));
  canvas.addEventListener("wheel", (e) => { e.preventDefault(); zoom(Math.exp(e.deltaY * 0.001)); }, { passive: false });
  canvas.addEventListener("keydown", (e) => {
    const pick = (value) => { ui.show.value = value; rebuild(); };
    const act = {
      ArrowLeft: () => turn(-0.1, 0), ArrowRight: () => turn(0.1, 0), ArrowUp: () => turn(0, 0.08),
      ArrowDown: () => turn(0, -0.08), "+": () => zoom(0.88), "=": () => zoom(0.88), "-": () => zoom(1.14),
      ",": () => step(-1), ".": () => step(1), "1": () => pick("truth"), "2": () => pick("forecast"),
      "3": () => pick("difference"), "4": () => now.known && pick("unknown"), " ": () => ui.play.click(),
      "[": () => { ui.cut.stepDown(); dirty = true; }, "]": () => { ui.cut.stepUp(); dirty = true; },
    }[e.key];
    if (act) { act(); e.preventDefault(); }
  });
  new ResizeObserver(() => { dirty = true; }).observe(canvas);
  open(0).then(loop);
})();

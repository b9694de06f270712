"use strict";
const $ = id => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const START = { yaw: -0.6, pitch: 0.15, zoom: 1 };
const player = { take: null, frame: 0, playing: false, speed: 1, view: { ...START } };
window.player = player;

function numbers(text) {
  const bytes = Uint8Array.from(atob(text), c => c.charCodeAt(0));
  return new Int16Array(bytes.buffer);
}

// Position k of joint j in a frame; null where a file has none.
function point(values, scale, frame, joint, width) {
  const at = (frame * data.joints.length + joint) * width;
  if (values[at] === data.none) return null;
  const found = [];
  for (let k = 0; k < width; k++) found.push(values[at + k] * scale);
  return found;
}

function pose(values, scale, frame, width) {
  return data.joints.map((_, joint) => point(values, scale, frame, joint, width));
}

function error(take, frame, joint) {
  const a = point(take.predicted, take.scale, frame, joint, 3);
  const b = point(take.truth, take.scale, frame, joint, 3);
  return a && b ? Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]) : NaN;
}

function errorsOf(take, frame) {
  return data.joints.map((_, joint) => error(take, frame, joint));
}

function mean(values) {
  const known = values.filter(Number.isFinite);
  return known.length ? known.reduce((a, b) => a + b, 0) / known.length : NaN;
}

// What the 2D view shows: where anybody is at any time, and a margin.
function boxOf(take) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < take.input.length; i += 2) {
    if (take.input[i] === data.none) continue;
    const [x, y] = [take.input[i] * take.pixel, take.input[i + 1] * take.pixel];
    left = Math.min(left, x); right = Math.max(right, x);
    top = Math.min(top, y); bottom = Math.max(bottom, y);
  }
  if (left > right) return [0, 0, ...take.size];
  const margin = 0.08 * Math.max(right - left, bottom - top, 10);
  return [left - margin, top - margin, right - left + 2 * margin, bottom - top + 2 * margin];
}

function load(index) {
  const raw = data.takes[index];
  if (!raw.decoded) {
    raw.predicted = numbers(raw.predicted);
    raw.truth = raw.truth && numbers(raw.truth);
    raw.input = raw.input && numbers(raw.input);
    if (raw.input) raw.box = boxOf(raw);
    let top = Infinity, bottom = -Infinity, reach = 1;
    for (let i = 0; i < raw.predicted.length; i += 3) {
      if (raw.predicted[i] === data.none) continue;
      const [x, y, z] = [0, 1, 2].map(k => raw.predicted[i + k] * raw.scale);
      top = Math.min(top, y); bottom = Math.max(bottom, y);
      reach = Math.max(reach, Math.hypot(x, z));
    }
    if (top > bottom) [top, bottom] = [-1000, 1000];
    raw.middle = (top + bottom) / 2; raw.bottom = bottom;
    raw.reach = Math.max(reach, (bottom - top) / 2) * 1.12;
    raw.errors = raw.truth
      ? Array.from({ length: raw.frames }, (_, f) => mean(errorsOf(raw, f))) : null;
    raw.decoded = true;
  }
  player.take = raw; player.frame = 0;
  $("time").max = raw.frames - 1;
  for (const id of ["overlay", "curve", "key-true"]) $(id).hidden = !raw.truth;
  $("states").hidden = !raw.state || raw.state.every(state => state === 2);
  $("key-states").hidden = $("states").hidden;
  for (const cell of document.querySelectorAll(".error")) cell.hidden = !raw.truth;
  $("key-given").hidden = !raw.input;
  $("seen").textContent = raw.input ? "2D input" : "Camera view (no 2D input in the file)";
  $("space").setAttribute("aria-label", `3D skeleton of ${raw.name}`);
  $("image").setAttribute("aria-label", `${$("seen").textContent} of ${raw.name}`);
  $("errors").setAttribute("aria-label", `error over time of ${raw.name}`);
  $("note").textContent = [data.note, raw.note].filter(Boolean).join(" ");
  show(0, true);
}

// ---- drawing
function prepare(id) {
  const canvas = $(id), ratio = window.devicePixelRatio || 1;
  const width = canvas.clientWidth, height = canvas.clientHeight;
  const w = Math.round(width * ratio), h = Math.round(height * ratio);
  if (canvas.width !== w || canvas.height !== h) { canvas.width = w; canvas.height = h; }
  const pen = canvas.getContext("2d");
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, width, height);
  return { pen, width, height };
}

const color = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function skeleton(pen, points, ink, { dashed = false, thick = 3 } = {}) {
  pen.save();
  pen.strokeStyle = ink; pen.lineWidth = thick; pen.lineCap = "round";
  pen.setLineDash(dashed ? [7, 5] : []);
  data.parents.forEach((parent, child) => {
    if (parent < 0 || !points[parent] || !points[child]) return;
    pen.beginPath(); pen.moveTo(...points[parent]); pen.lineTo(...points[child]); pen.stroke();
  });
  pen.setLineDash([]);
  points.forEach((at, joint) => {
    if (!at) return;
    const middle = !data.right.includes(joint) && !data.left.includes(joint);
    pen.beginPath(); pen.arc(at[0], at[1], dashed || middle ? 2 : 4, 0, 7);
    pen.fillStyle = data.right.includes(joint) ? color("--paper") : ink;
    pen.lineWidth = 1.5; pen.fill(); pen.stroke();
  });
  pen.restore();
}

function projector(width, height) {
  const { yaw, pitch, zoom } = player.view, take = player.take;
  const scale = zoom * Math.min(width, height) / 2 / take.reach;
  const [cy, sy, cp, sp] = [Math.cos(yaw), Math.sin(yaw), Math.cos(pitch), Math.sin(pitch)];
  return p => {
    if (!p) return null;
    const x = p[0] * cy + p[2] * sy, z = p[2] * cy - p[0] * sy, y = p[1] - take.middle;
    return [width / 2 + scale * x, height / 2 + scale * (y * cp - z * sp)];
  };
}

function drawSpace() {
  const { pen, width, height } = prepare("space"), take = player.take;
  const at = projector(width, height), far = take.reach / 1.12;
  pen.strokeStyle = color("--faint"); pen.lineWidth = 1;
  for (let i = -4; i <= 4; i++) {
    const s = far * i / 4;
    for (const [a, b] of [[[s, -far], [s, far]], [[-far, s], [far, s]]]) {
      pen.beginPath();
      pen.moveTo(...at([a[0], take.bottom, a[1]])); pen.lineTo(...at([b[0], take.bottom, b[1]]));
      pen.stroke();
    }
  }
  pen.fillStyle = color("--soft"); pen.font = "12px system-ui, sans-serif"; pen.textAlign = "center";
  pen.fillText("camera", ...at([0, take.bottom, -far * 1.06]));
  if (take.truth && $("truth").checked) {
    skeleton(pen, pose(take.truth, take.scale, player.frame, 3).map(at), color("--true"),
      { dashed: true, thick: 2 });
  }
  skeleton(pen, pose(take.predicted, take.scale, player.frame, 3).map(at), color("--predicted"),
    { dashed: stateOf(player.frame) === "filled" });
}

function stateOf(frame) {
  const state = player.take.state;
  return state ? data.states[state[frame]] : "seen";
}

// Which frames were seen, filled and absent.
function drawStates() {
  const take = player.take;
  if ($("states").hidden) return;
  const { pen, width, height } = prepare("states");
  const ink = { seen: color("--predicted"), filled: color("--true"), absent: color("--faint") };
  take.state.forEach((state, f) => {
    pen.fillStyle = ink[data.states[state]];
    pen.fillRect(width * f / take.frames, 0, width / take.frames + 0.5, height);
  });
  pen.fillStyle = color("--ink");
  pen.fillRect(width * (player.frame + 0.5) / take.frames - 1, 0, 2, height);
}

function drawImage() {
  const { pen, width, height } = prepare("image"), take = player.take;
  if (take.input) {
    const [x, y, w, h] = take.box, scale = Math.min(width / w, height / h);
    const left = (width - w * scale) / 2 - x * scale, top = (height - h * scale) / 2 - y * scale;
    pen.strokeStyle = color("--faint");
    pen.strokeRect(left, top, take.size[0] * scale, take.size[1] * scale);
    const points = pose(take.input, take.pixel, player.frame, 2)
      .map(p => p && [left + p[0] * scale, top + p[1] * scale]);
    skeleton(pen, points, color("--given"), { dashed: stateOf(player.frame) === "filled" });
    return;
  }
  const scale = Math.min(width, height) / 2 / take.reach;
  const at = p => p && [width / 2 + scale * p[0], height / 2 + scale * (p[1] - take.middle)];
  if (take.truth && $("truth").checked) {
    skeleton(pen, pose(take.truth, take.scale, player.frame, 3).map(at), color("--true"),
      { dashed: true, thick: 2 });
  }
  skeleton(pen, pose(take.predicted, take.scale, player.frame, 3).map(at), color("--predicted"));
}

function drawErrors() {
  const take = player.take;
  if (!take.errors) return;
  const { pen, width, height } = prepare("errors");
  const top = Math.max(1, ...take.errors.filter(Number.isFinite)) * 1.1;
  const x = f => 34 + (width - 40) * (take.frames > 1 ? f / (take.frames - 1) : 0);
  const y = e => height - 4 - (height - 10) * e / top;
  pen.fillStyle = color("--soft"); pen.font = "11px system-ui, sans-serif"; pen.textAlign = "right";
  pen.strokeStyle = color("--faint");
  for (const tick of [0, top / 2.2, top / 1.1]) {
    pen.beginPath(); pen.moveTo(34, y(tick)); pen.lineTo(width - 6, y(tick)); pen.stroke();
    pen.fillText(tick.toFixed(0), 29, Math.min(y(tick) + 4, height - 2));
  }
  pen.strokeStyle = color("--predicted"); pen.lineWidth = 1.5; pen.beginPath();
  take.errors.forEach((e, f) => {
    if (!Number.isFinite(e)) return;
    if (f && Number.isFinite(take.errors[f - 1])) pen.lineTo(x(f), y(e)); else pen.moveTo(x(f), y(e));
  });
  pen.stroke();
  pen.strokeStyle = color("--ink"); pen.lineWidth = 1; pen.beginPath();
  pen.moveTo(x(player.frame), 0); pen.lineTo(x(player.frame), height); pen.stroke();
}

// ---- words
function describe() {
  const take = player.take, frame = player.frame;
  let text = `${take.name}: frame ${frame + 1} of ${take.frames}, ` +
    `${(frame / take.fps).toFixed(2)} s.`;
  if (stateOf(frame) !== "seen") text += ` The person is ${stateOf(frame)} here.`;
  const errors = take.truth ? errorsOf(take, frame) : [];
  const whole = mean(errors);
  if (Number.isFinite(whole)) {
    const worst = errors.reduce((best, e, j) => e > (errors[best] ?? -1) ? j : best, 0);
    text += ` Mean error ${whole.toFixed(0)} mm; largest ${errors[worst].toFixed(0)} mm, ` +
      `${data.joints[worst].replace("_", " ")}.`;
  }
  $("said").textContent = text;
  if (!$("numbers").open) return;
  $("rows").replaceChildren(...data.joints.map((name, joint) => {
    const row = document.createElement("tr"), at = point(take.predicted, take.scale, frame, joint, 3);
    const cells = [name.replace("_", " "), ...(at || [NaN, NaN, NaN]).map(v => v.toFixed(0))];
    if (take.truth) cells.push(Number.isFinite(errors[joint]) ? errors[joint].toFixed(0) : "-");
    row.append(...cells.map(text => {
      const cell = document.createElement("td");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
}

function draw() { drawSpace(); drawImage(); drawErrors(); drawStates(); }

function show(frame, still) {
  const take = player.take;
  player.frame = Math.max(0, Math.min(take.frames - 1, Math.round(frame)));
  $("time").value = player.frame;
  $("time").setAttribute("aria-valuetext", `frame ${player.frame + 1} of ${take.frames}`);
  $("clock").textContent = `${(player.frame / take.fps).toFixed(2)} / ` +
    `${((take.frames - 1) / take.fps).toFixed(2)} s`;
  draw();
  if (still) describe();
}

// ---- time
let begun = 0, from = 0;
function tick(now) {
  if (!player.playing) return;
  const take = player.take;
  const frame = from + (now - begun) / 1000 * take.fps * player.speed;
  if (frame >= take.frames) { begun = now; from = 0; show(0); }
  else if (Math.floor(frame) !== player.frame) show(Math.floor(frame));
  requestAnimationFrame(tick);
}
function play(on) {
  if (on === player.playing) return;
  player.playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  if (on) {
    from = player.frame >= player.take.frames - 1 ? 0 : player.frame;
    begun = performance.now();
    requestAnimationFrame(tick);
  } else describe();
}
function step(by) { play(false); show(player.frame + by, true); }

// ---- hands
function turn(yaw, pitch) {
  player.view.yaw += yaw;
  player.view.pitch = Math.max(-1.5, Math.min(1.5, player.view.pitch + pitch));
  drawSpace();
}
function zoom(by) {
  player.view.zoom = Math.max(0.3, Math.min(6, player.view.zoom * by));
  drawSpace();
}
function reset() { player.view = { ...START }; drawSpace(); }

const fingers = new Map();
const spread = () => { const [a, b] = [...fingers.values()]; return Math.hypot(a.x - b.x, a.y - b.y); };
$("space").addEventListener("pointerdown", event => {
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  $("space").setPointerCapture(event.pointerId);
});
$("space").addEventListener("pointermove", event => {
  const last = fingers.get(event.pointerId);
  if (!last) return;
  const before = fingers.size === 2 ? spread() : 0;
  fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
  if (fingers.size === 1) turn((event.clientX - last.x) * 0.01, -(event.clientY - last.y) * 0.01);
  else if (before) zoom(spread() / before);
});
for (const end of ["pointerup", "pointercancel"]) {
  $("space").addEventListener(end, event => fingers.delete(event.pointerId));
}
$("space").addEventListener("wheel", event => {
  event.preventDefault();
  zoom(Math.exp(-event.deltaY / 800));
}, { passive: false });

const KEYS = {
  ArrowLeft: e => step(e.shiftKey ? -10 : -1), ArrowRight: e => step(e.shiftKey ? 10 : 1),
  Home: () => step(-Infinity), End: () => step(Infinity), " ": () => play(!player.playing),
  a: () => turn(-0.1, 0), d: () => turn(0.1, 0), w: () => turn(0, 0.1), s: () => turn(0, -0.1),
  "+": () => zoom(1.15), "-": () => zoom(1 / 1.15), r: reset,
  t: () => { if (player.take.truth) $("truth").click(); },
};
document.addEventListener("keydown", event => {
  const on = event.target.tagName;
  if (event.ctrlKey || event.metaKey || event.altKey || on === "SELECT") return;
  // The slider moves by its own keys; buttons and boxes are pressed by the space bar.
  if (event.key === " " && (on === "BUTTON" || on === "SUMMARY" || event.target.type === "checkbox")) {
    return;
  }
  if (event.target === $("time") && event.key !== " ") return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (act) { event.preventDefault(); act(event); }
});

$("play").addEventListener("click", () => play(!player.playing));
$("reset").addEventListener("click", reset);
$("truth").addEventListener("change", draw);
$("numbers").addEventListener("toggle", describe);
$("time").addEventListener("input", () => { play(false); show(Number($("time").value), true); });
$("speed").addEventListener("change", () => {
  from = player.frame; begun = performance.now(); player.speed = Number($("speed").value);
});
$("take").addEventListener("change", () => { play(false); load($("take").selectedIndex); });
window.addEventListener("resize", draw);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);

for (const take of data.takes) $("take").add(new Option(take.name));
load(0);

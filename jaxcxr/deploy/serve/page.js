"use strict";
const $ = id => document.getElementById(id);
const state = { model: null, file: null, asked: 0 };

const percent = value => `${(100 * value).toFixed(1)} %`;
const plain = name => name.replaceAll("_", " ");

function say(text) { $("said").textContent = text; }

function complain(text) {
  say("");
  $("wrong").textContent = text;
  $("wrong").hidden = !text;
}

// The answer to a file; throws what went wrong in words.
async function send(path, query) {
  const url = `${path}?${new URLSearchParams(query)}`;
  const dicom = /\.(dcm|dicom)$/i.test(state.file.name);
  const type = dicom ? "application/dicom" : state.file.type || "application/octet-stream";
  let answer;
  try {
    answer = await fetch(url, { method: "POST", body: state.file, headers: { "Content-Type": type } });
  } catch {
    throw new Error("The server is not responding. Is it still running?");
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({ title: `error ${answer.status}`, detail: "" }));
  throw new Error(`${state.file.name}: ${problem.title}: ${problem.detail}`);
}

async function take(file) {
  if (!file || !state.model) return;
  if (file.size > state.model.upload) {
    complain(`${file.name} is larger than ${state.model.upload / 1e6} MB, the largest size accepted.`);
    return;
  }
  state.file = file;
  const asked = ++state.asked;
  complain("");
  say(`Working on ${file.name} ...`);
  for (const id of ["radiograph", "player", "flagged"]) $(id).hidden = true;
  try {
    await (state.model.task === "cxr" ? findings(asked) : lift(asked));
  } catch (error) {
    if (asked === state.asked) complain(error.message);
  }
}

// ---- radiographs
async function findings(asked) {
  const found = await (await send("/api/findings", { picture: true })).json();
  if (asked !== state.asked) return;
  const positive = found.findings.filter(one => one.found);
  $("image").src = found.picture;
  $("image").alt = `Radiograph ${state.file.name}`;
  $("flagged").textContent = `Flagged: ${found.reason}. The model was trained on frontal chest ` +
    "radiographs; for any other image its results mean nothing.";
  $("flagged").hidden = found.status === "ok";
  const order = [...found.findings].sort((a, b) => b.found - a.found || b.probability - a.probability);
  $("rows").replaceChildren(...order.map(row));
  $("heat").hidden = true;
  $("caption").textContent = "";
  $("radiograph").hidden = false;
  const flagged = found.status === "flagged";
  for (const id of ["opacity", "opacity-label"]) $(id).hidden = flagged;
  if (flagged) {
    say(`${state.file.name}: flagged, so no findings are stated.`);
    return;
  }
  say(`${state.file.name}: ` + (positive.length
    ? `${positive.length} of ${found.findings.length} findings above their thresholds.`
    : "no finding above its threshold."));
  await look(order[0].name);
}

function row(one) {
  const line = document.createElement("tr");
  line.classList.toggle("found", one.found === true);
  line.classList.toggle("unstated", one.found === null);
  const button = document.createElement("button");
  button.textContent = (one.found ? "\u25cf " : "") + plain(one.name);
  button.dataset.finding = one.name;
  button.disabled = one.found === null;
  button.setAttribute("aria-pressed", "false");
  button.addEventListener("click", () => look(one.name).catch(error => complain(error.message)));
  const probability = percent(one.probability) + (one.calibrated ? "" : " *");
  const cells = [button, probability, bar(one), percent(one.threshold)].map(content => {
    const cell = document.createElement("td");
    cell.append(content);
    return cell;
  });
  line.append(...cells);
  return line;
}

function bar(one) {
  const make = (name, values) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(values)) made.setAttribute(key, value);
    return made;
  };
  const picture = make("svg", { "aria-hidden": true });  // the numbers stand beside it
  const mark = percent(one.threshold).replace(" ", "");
  picture.append(
    make("rect", { class: "back", width: "100%", height: "100%" }),
    make("rect", { class: "fill", width: percent(one.probability).replace(" ", ""), height: "100%" }),
    make("line", { x1: mark, x2: mark, y1: 0, y2: "100%" }),
  );
  return picture;
}

async function look(finding) {
  const asked = state.asked;
  const buttons = document.querySelectorAll("#rows button");
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.finding === finding));
  }
  const picture = await (await send("/api/heatmap", { finding })).blob();
  const chosen = document.querySelector("#rows button[aria-pressed=true]");
  if (asked !== state.asked || chosen?.dataset.finding !== finding) return;
  URL.revokeObjectURL($("heat").src);
  $("heat").src = URL.createObjectURL(picture);
  $("heat").alt = `Heat map: where the model looks for ${plain(finding)}`;
  $("heat").hidden = false;
  $("caption").textContent = `Where the model looks for ${plain(finding)} ` +
    `(${plain(state.model.service.heatmap)}): brighter counts more. It explains the model, ` +
    "not the patient.";
  fade();
}

function fade() {
  $("heat").style.opacity = $("opacity").value / 100;
  $("percent").textContent = `${$("opacity").value} %`;
}

// ---- poses
async function lift(asked) {
  const query = { fps: $("fps").value };
  for (const id of ["width", "height", "joints"]) if ($(id).value) query[id] = $(id).value;
  const page = await (await send("/api/player", query)).text();
  if (asked !== state.asked) return;
  // A frame that was hidden is not laid out anew, a new one is.
  const fresh = $("player").cloneNode();
  fresh.hidden = false;
  fresh.srcdoc = page;
  $("player").replaceWith(fresh);
  say(`${state.file.name}: lifted.`);
}

// ---- start
function introduce(model) {
  const radiographs = model.task === "cxr";
  $("title").textContent = radiographs ? "Findings in chest radiographs" : "3D poses from 2D keypoints";
  document.title = $("title").textContent;
  $("ask").textContent = radiographs ? "Drop a chest radiograph here, or choose one"
    : "Drop 2D keypoints of a video here, or choose a file";
  $("kinds").textContent = (radiographs ? "PNG, JPEG or DICOM" : "JSON of COCO or AlphaPose") +
    `, up to ${model.upload / 1e6} MB`;
  $("file").accept = radiographs ? ".png,.jpg,.jpeg,.dcm,.dicom,image/png,image/jpeg,application/dicom"
    : ".json,application/json";
  $("about").textContent = model.description;
  $("video").hidden = radiographs;
  for (const name of model.service.joint_sets ?? []) $("joints").add(new Option(name));
  const tested = Object.entries(model.test).filter(([name, value]) =>
    value !== null && !name.includes("/")).slice(0, 6);
  const facts = {
    Bundle: model.model, "Trained on": `${model.training.source}, run ${model.training.run}`,
    "Test split": tested.map(([name, value]) => `${name} ${value.toPrecision(4)}`).join(", "),
    Licence: model.licence.slice(0, 2000),
  };
  for (const [name, value] of Object.entries(facts)) {
    const [term, text] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    text.textContent = value;
    $("facts").append(term, text);
  }
}

$("file").addEventListener("change", () => { take($("file").files[0]); $("file").value = ""; });
$("opacity").addEventListener("input", fade);
$("video").addEventListener("submit", event => { event.preventDefault(); take(state.file); });
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, event => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragover");
    if (kind === "drop") take(event.dataTransfer.files[0]);
  });
}
fetch("/api/model").then(answer => answer.json()).then(model => {
  state.model = model;
  introduce(model);
}).catch(() => complain("The server is not responding. Is it still running?"));

// What the pages do beyond showing: live updates, actions, forms. The server renders; this fetches the page again and
// puts the parts that changed in place, so that there is one truth about how things look.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];
const ROOT = document.documentElement.dataset.root; // the path under which a proxy shows the lab; mostly empty

let toastTimer;
function toast(text) {
  $("#toast").textContent = text;
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => ($("#toast").textContent = ""), 6000);
}

async function problemOf(response) {
  try {
    const document = await response.json();
    if (document && typeof document === "object") return document;
  } catch { /* a proxy's page, or nothing */ }
  return { title: `The lab answered ${response.status} ${response.statusText}`.trim(), detail: "", fix: "The answer is not from the lab; it may be from a proxy." };
}

// Send a request that changes something; shows what went wrong and returns null then.
async function send(address, options) {
  try {
    const response = await fetch(address, { headers: { Accept: "application/json" }, ...options });
    if (response.ok) return response.status === 204 ? {} : await response.json();
    const problem = await problemOf(response);
    toast([problem.detail || problem.title, problem.fix].filter(Boolean).join(". "));
  } catch {
    toast("The lab does not answer.");
  }
  return null;
}

// ---- live parts -----------------------------------------------------------------------------------------------------

const choices = {}; // image id -> query parameters that the reader chose

function addressOf(image) {
  const address = new URL(image.getAttribute("src"), location.href);
  for (const [name, value] of Object.entries(choices[image.id] ?? {})) address.searchParams.set(name, value);
  if (image.dataset.version) address.searchParams.delete("v");
  return address.pathname + address.search;
}

// Show another picture only once it is there, so that nothing flickers.
async function show(image, address, version) {
  const turn = (image.turn = (image.turn ?? 0) + 1);
  const response = await fetch(address);
  if (!response.ok) return toast((await problemOf(response)).detail);
  const loaded = URL.createObjectURL(await response.blob());
  if (turn !== image.turn) return URL.revokeObjectURL(loaded); // a later picture was asked for meanwhile
  const before = image.src;
  image.src = loaded;
  image.dataset.address = address;
  if (version) image.dataset.version = version;
  if (before.startsWith("blob:")) URL.revokeObjectURL(before);
}

function replace(part, fresh) {
  if (part.innerHTML === fresh.innerHTML) return;
  const image = $("img[data-version]", part);
  const freshImage = image && $("img[data-version]", fresh);
  if (freshImage) {
    const slider = $("input[type=range]", part), freshSlider = $("input[type=range]", fresh);
    if (slider && freshSlider) {
      const following = slider.value === slider.max;
      slider.max = freshSlider.max;
      slider.disabled = freshSlider.disabled;
      if (following) slider.value = slider.max;
      $("output", part).textContent = slider.value;
    }
    if (image.dataset.version !== freshImage.dataset.version) show(image, addressOf(freshImage), freshImage.dataset.version);
    return;
  }
  if (part.contains(document.activeElement) && document.activeElement.matches("input, select, textarea")) return;
  const checked = $$("input:checked", part).map((box) => box.value);
  part.innerHTML = fresh.innerHTML;
  $$("input[type=checkbox]", part).forEach((box) => (box.checked = checked.includes(box.value)));
  offerComparison();
  part.toggleAttribute("data-busy", fresh.hasAttribute("data-busy"));
  fillEvaluation();
}

let refreshing = false, again = false;
async function refresh() {
  if (refreshing) return void (again = true);
  refreshing = true;
  try {
    const response = await fetch(location.href);
    if (response.ok && !response.redirected) {
      const page = new DOMParser().parseFromString(await response.text(), "text/html");
      for (const part of $$("[data-live]")) {
        const fresh = page.getElementById(part.id);
        if (fresh) replace(part, fresh);
      }
    }
  } catch { /* the stream connects again, and refreshes then */ }
  refreshing = false;
  if (again) { again = false; refresh(); }
}

// A span of time as models/text.py writes it.
function duration(seconds) {
  const nearest = (value) => Math.floor(value + 0.5);
  const tenths = nearest(10 * Math.max(0, seconds));
  if (tenths < 100) return `${(tenths / 10).toFixed(1)} s`;
  const inTwo = (whole, unit, word, part, partWord) => {
    const rest = Math.floor((whole % unit) / part);
    return `${Math.floor(whole / unit)} ${word}` + (rest ? ` ${rest} ${partWord}` : "");
  };
  const whole = nearest(seconds), minutes = 60 * nearest(seconds / 60);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return inTwo(whole, 60, "min", 1, "s");
  return minutes < 86400 ? inTwo(minutes, 3600, "h", 60, "min") : inTwo(3600 * nearest(seconds / 3600), 86400, "d", 3600, "h");
}

function showProgress(progress) {
  const text = $("[data-progress]"), bar = $("#state .bar");
  if (!text || !bar || !progress.epochs) return;
  if (!progress.epoch) return void (text.textContent = progress.phase || "starting");
  const within = progress.steps ? progress.step / progress.steps : 0;
  const percent = Math.min(100, (100 * (progress.epoch - 1 + within)) / progress.epochs);
  $("rect", bar).setAttribute("width", percent);
  bar.setAttribute("aria-valuenow", Math.round(percent));
  const speed = progress.images_per_second ? `, ${Math.round(progress.images_per_second).toLocaleString("en")} images/s` : "";
  const left = progress.seconds_left == null ? "" : `, ${duration(progress.seconds_left)} left`;
  const phase = progress.phase && progress.phase !== "training" ? ` (${progress.phase})` : "";
  text.textContent = `epoch ${progress.epoch} of ${progress.epochs}${phase}${speed}${left}`;
}

let stream;
function follow(article) {
  if (stream) stream.close();
  stream = new EventSource(`${ROOT}/api/v1/experiments/${article.dataset.experiment}/events?after=${article.dataset.after}`);
  for (const kind of ["state", "epoch", "verdict", "notice"]) stream.addEventListener(kind, refresh);
  stream.addEventListener("notice", (event) => toast(JSON.parse(event.data).text));
  stream.addEventListener("progress", (event) => showProgress(JSON.parse(event.data)));
  stream.addEventListener("end", (event) => {
    stream.close();
    if (JSON.parse(event.data).status === "deleted") location.href = `${ROOT}/`;
    else refresh();
  });
}

// ---- pictures -------------------------------------------------------------------------------------------------------

function choose(id, name, value) {
  choices[id] = { ...choices[id], [name]: value };
  const image = document.getElementById(id);
  if (!image) return;
  const address = new URL(image.dataset.address ?? image.getAttribute("src"), location.href);
  for (const [key, chosen] of Object.entries(choices[id])) address.searchParams.set(key, chosen);
  show(image, address.pathname + address.search);
}

let slideTimer;
document.addEventListener("input", (event) => {
  const slider = event.target.closest("[data-slide]");
  if (!slider) return;
  $("output", slider.closest("label")).textContent = slider.value;
  clearTimeout(slideTimer);
  slideTimer = setTimeout(() => choose(slider.dataset.slide, slider.dataset.parameter, slider.value), 120);
});

// A picture that cannot be loaded is replaced by the reason.
document.addEventListener("error", async (event) => {
  const image = event.target;
  if (!image.matches?.(".paper img") || image.src.startsWith("blob:")) return;
  let problem = { title: "The lab does not answer" };
  try {
    const response = await fetch(image.src);
    if (!response.ok) problem = await problemOf(response);
  } catch { /* it does not answer */ }
  image.closest("figure").replaceChildren(element("p", { class: "problem", role: "alert" }, problem.detail || problem.title));
}, true);

// ---- predictions ----------------------------------------------------------------------------------------------------

function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
  made.append(...children);
  return made;
}

function probabilityBar(fraction) {
  const holder = document.createElement("div");
  holder.innerHTML = '<svg preserveAspectRatio="none" viewBox="0 0 100 1" aria-hidden="true"><rect height="1"/></svg>';
  $("rect", holder).setAttribute("width", 100 * fraction);
  return holder.firstChild;
}

async function predict(form, files) {
  const list = $("#predictions");
  if (!files.length) return;
  const body = new FormData();
  [...files].forEach((file) => body.append("image", file));
  const weights = $("select", form).value;
  const answer = await send(`${form.dataset.predict}?top_k=3&weights=${weights}`, { method: "POST", body });
  if (!answer) return;
  const items = answer.predictions.map((prediction, index) => {
    const picture = element("img", { alt: "", src: URL.createObjectURL(files[index]) });
    const classes = prediction.top.map((one) =>
      element("div", { class: "class" }, element("span", {}, one.label), element("span", { class: "num" },
        `${(100 * one.probability).toFixed(1)} %`), probabilityBar(one.probability)));
    const unknown = prediction.known === false ? [element("div", { class: "small" }, "may be none of the classes")] : [];
    const details = element("div", { class: "bars" }, element("div", { class: "name" }, files[index].name), ...classes, ...unknown);
    return element("li", {}, picture, details, lookForm(form.dataset.predict.replace(/predictions$/, ""), weights, files[index]));
  });
  list.prepend(...items);
}

const LOOKS = [
  ["explanations?method=occlusion", "occlusion"], ["explanations?method=grad_cam", "Grad-CAM"],
  ["explanations?method=integrated_gradients", "integrated gradients"],
  ["feature_maps?layer=0", "feature maps"], ["timeline?format=svg", "timeline"],
];

// A choice of what to look at for one image that was classified; the picture appears below it.
function lookForm(root, weights, file) {
  const choice = element("select", { "aria-label": `Explain the prediction of ${file.name}` },
    element("option", { value: "" }, "look closer ..."), ...LOOKS.map(([value, name]) => element("option", { value }, name)));
  const place = element("figure", { class: "paper" });
  place.hidden = true;
  choice.addEventListener("change", async () => {
    const asked = choice.value;
    if (!asked) return void (place.hidden = true);
    choice.disabled = true;
    const body = new FormData();
    body.append("image", file);
    const which = asked.startsWith("timeline") ? "" : `&weights=${weights}`;
    try {
      const response = await fetch(`${root}${asked}${which}`, { method: "POST", body, headers: { Accept: "image/png, image/svg+xml" } });
      const shown = response.ok
        ? element("img", { src: URL.createObjectURL(await response.blob()), alt: `${choice.selectedOptions[0].textContent} of ${file.name}` })
        : element("p", { class: "problem", role: "alert" }, (await problemOf(response)).detail);
      place.replaceChildren(shown);
    } catch {
      place.replaceChildren(element("p", { class: "problem", role: "alert" }, "The lab does not answer."));
    }
    place.hidden = choice.disabled = false;
  });
  return element("div", { class: "look" }, choice, place);
}

// ---- what was wrong -------------------------------------------------------------------------------------------------

const perCent = (fraction) => `${(100 * fraction).toFixed(1)}%`;

async function fillEvaluation() {
  const place = $("[data-evaluation]");
  if (!place || "filled" in place.dataset) return;
  place.dataset.filled = "";
  const [confusion, calibration] = await Promise.all(["confusion", "calibration"].map((name) => send(`${place.dataset.evaluation}/${name}`)));
  if (confusion) {
    const rows = confusion.most_confused.slice(0, 8).map((pair) => element("tr", {}, element("td", {}, pair.label), element("td", {}, pair.predicted),
      element("td", { class: "num" }, pair.count), element("td", { class: "num" }, perCent(pair.share))));
    $("[data-pairs]", place).replaceChildren(...rows);
  }
  if (calibration) {
    const { temperature, confidence, accuracy, expected_calibration_error: before, calibrated_expected_calibration_error: after } = calibration;
    const mended = temperature === null ? "There are too few validation images for a temperature."
      : `With logits divided by ${temperature.toFixed(3)} it is ${perCent(after)}.`;
    $("[data-calibration]", place).textContent = `It is right about ${perCent(accuracy)} of the images, with a mean confidence of ${perCent(confidence)}. The expected calibration error is ${perCent(before)}. ${mended}`;
  }
}
fillEvaluation();

document.addEventListener("change", (event) => {
  const form = event.target.closest("[data-predict]");
  const upload = event.target.closest("[data-upload]");
  if (upload && event.target.type === "file") showChosen(upload);
  if (form && event.target.type === "file") predict(form, event.target.files).then(() => (event.target.value = ""));
  if (event.target.closest("[data-auto]")) event.target.form.submit();
  if (event.target.name === "compare") offerComparison();
  if (event.target.name === "preset") fillSpec(event.target);
});
for (const kind of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    const drop = event.target.closest?.(".drop");
    if (!drop) return;
    event.preventDefault();
    drop.classList.toggle("over", kind === "dragover");
    if (kind !== "drop") return;
    if (!drop.closest("[data-upload]")) return predict(drop.closest("form"), event.dataTransfer.files);
    $("input[type=file]", drop).files = event.dataTransfer.files;
    showChosen(drop.closest("form"));
  });
}

// ---- the list and the form ------------------------------------------------------------------------------------------

const picked = () => $$("input[name=compare]:checked").map((box) => box.value);

// A comparison is offered from two ticks on; at the most that a picture holds, further ticks wait for one to be taken away.
function offerComparison() {
  const button = $("#compare");
  if (!button) return;
  const most = Number(button.dataset.most), number = picked().length;
  button.hidden = number < 2;
  button.textContent = `Compare ${number} curves`;
  $("#compare-note").hidden = number < most;
  $$("input[name=compare]").forEach((box) => (box.disabled = number >= most && !box.checked));
}

function fillSpec(select) {
  $("textarea[name=spec]").value = select.selectedOptions[0].dataset.body;
}

function showProblem(form, problem) {
  const box = $(".problem", form);
  box.hidden = !problem;
  if (!problem) return;
  const entries = (problem.errors ?? []).map((error) => {
    const nearest = error.nearest === undefined ? "" : ` (nearest: ${JSON.stringify(error.nearest)})`;
    return element("li", {}, element("code", {}, error.field), ` ${error.message}${nearest}`);
  });
  const detail = entries.length ? element("ul", {}, ...entries) : problem.detail ? `: ${problem.detail}` : "";
  const fix = problem.fix ? element("div", {}, problem.fix) : "";
  box.replaceChildren(element("strong", {}, problem.title ?? "It was not accepted"), detail, fix);
}

// The spec is sent as it was written, and the name beside it: what is not text of ours is not edited as text.
async function submitSpec(form, dryRun) {
  const body = form.elements.spec.value, name = form.elements.name.value.trim();
  const type = /^\s*\{\s*("|\}|$)/.test(body) ? "application/json" : "application/yaml"; // {a: 1} is YAML
  const query = new URLSearchParams({ ...(name && { name }), ...(dryRun && { dry_run: "true" }) });
  const buttons = $$("button", form);
  buttons.forEach((button) => (button.disabled = true));
  showProblem(form, null);
  $(".measured", form).hidden = true;
  try {
    const response = await fetch(`${form.dataset.submit}?${query}`, { method: "POST", body, headers: { "Content-Type": type, Accept: "application/json" } });
    const answer = await problemOf(response);
    if (!response.ok) showProblem(form, answer);
    else if (dryRun) {
      $(".measured", form).hidden = false;
      $(".measured", form).textContent = JSON.stringify(answer, null, 2);
    } else location.href = answer.links.page;
  } catch (error) {
    showProblem(form, { title: "The lab does not answer", detail: String(error.message ?? error), fix: "Check that it is running, then submit again." });
  }
  buttons.forEach((button) => (button.disabled = false));
}

// Name, tags and notes of an experiment: those that were edited here, so that others' edits of the rest stay.
async function saveDetails(form) {
  const fields = ["name", "tags", "notes"].filter((field) => form.elements[field].value !== form.elements[field].defaultValue);
  const listed = (text) => text.split(",").map((tag) => tag.trim()).filter(Boolean);
  const read = (field) => (field === "tags" ? listed(form.elements.tags.value) : form.elements[field].value);
  const body = JSON.stringify(Object.fromEntries(fields.map((field) => [field, read(field)])));
  const headers = { "Content-Type": "application/json", Accept: "application/json" };
  if (await send(form.dataset.patch, { method: "PATCH", body, headers })) location.reload();
}

// ---- uploads ---------------------------------------------------------------------------------------------------------

function showChosen(form) {
  const file = form.elements.file.files[0];
  if (!file) return;
  $(".chosen", form).textContent = `${file.name}, ${(file.size / 1e6).toFixed(1)} MB`;
  if (!form.elements.name.value) {
    form.elements.name.value = file.name.replace(/\..*$/, "").replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z]+/, "").slice(0, 64);
  }
}

// The archive goes by tus, in pieces: an interrupted upload is resumed when it is submitted again.
const PIECE = 8 << 20, TUS = { "Tus-Resumable": "1.0.0" };

class Refused extends Error {
  constructor(problem) { super(problem.detail); this.problem = problem; }
}

async function ask(address, options) {
  const response = await fetch(address, options);
  if (!response.ok) throw new Refused(await problemOf(response));
  return response;
}

async function beginUpload(api, file) {
  const key = `upload ${api} ${file.name} ${file.size} ${file.lastModified}`;
  const known = sessionStorage.getItem(key);
  if (known) {
    const found = await fetch(known, { method: "HEAD", headers: TUS });
    if (found.ok) return { key, address: known, offset: Number(found.headers.get("Upload-Offset")) };
  }
  const name = btoa(String.fromCharCode(...new TextEncoder().encode(file.name)));
  const made = await ask(`${api}/uploads`, { method: "POST", headers: { ...TUS, "Upload-Length": file.size, "Upload-Metadata": `filename ${name}` } });
  const address = made.headers.get("Location");
  sessionStorage.setItem(key, address);
  return { key, address, offset: 0 };
}

let stopping = false;
async function sendUpload(form) {
  const file = form.elements.file.files[0], api = form.dataset.upload, bar = $(".bar", form), said = $("[data-sent]", form);
  const buttons = [$("[type=submit]", form)], stop = $("[data-stop]", form);
  buttons.forEach((button) => (button.disabled = true));
  showProblem(form, null);
  stopping = false;
  bar.hidden = stop.hidden = false;
  try {
    const upload = await beginUpload(api, file);
    while (upload.offset < file.size && !stopping) {
      $("rect", bar).setAttribute("width", (100 * upload.offset) / file.size);
      said.textContent = `${(upload.offset / 1e6).toFixed(0)} of ${(file.size / 1e6).toFixed(0)} MB sent`;
      const sent = await ask(upload.address, { method: "PATCH", body: file.slice(upload.offset, upload.offset + PIECE),
        headers: { ...TUS, "Upload-Offset": upload.offset, "Content-Type": "application/offset+octet-stream" } });
      upload.offset = Number(sent.headers.get("Upload-Offset"));
    }
    if (stopping) said.textContent += "; Upload continues from there";
    else {
      const query = new URLSearchParams({ name: form.elements.name.value, fit: form.elements.fit.value, upload: upload.address.split("/").pop() });
      if (form.elements.image_size.value) query.set("image_size", form.elements.image_size.value);
      const made = await (await ask(`${api}/datasets?${query}`, { method: "POST" })).json();
      sessionStorage.removeItem(upload.key);
      location.href = made.links.page;
    }
  } catch (error) {
    showProblem(form, error.problem ?? { title: "The lab does not answer", detail: String(error.message ?? error), fix: "Upload it again; it resumes where it stopped." });
  }
  stop.hidden = true;
  buttons.forEach((button) => (button.disabled = false));
}

document.addEventListener("submit", (event) => {
  if (event.target.dataset.upload !== undefined) {
    event.preventDefault();
    return void sendUpload(event.target);
  }
  const { submit, patch } = event.target.dataset;
  if (!submit && !patch) return;
  event.preventDefault();
  if (submit) submitSpec(event.target, false);
  else saveDetails(event.target);
});

document.addEventListener("click", async (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  const { post, delete: gone, confirm: question, copy } = button.dataset;
  const choice = button.closest("[data-switch]");
  if (choice) {
    $$("button", choice).forEach((one) => one.setAttribute("aria-pressed", one === button));
    choose(choice.dataset.switch, choice.dataset.parameter, button.dataset.value);
  } else if (post) {
    button.disabled = true;
    const answer = await send(post, { method: "POST" });
    button.disabled = false;
    if (answer && "follow" in button.dataset) location.href = answer.links.page;
    else if (answer) { refresh(); if (article) follow(article); }
  } else if (gone) {
    if (window.confirm(question) && (await send(gone, { method: "DELETE" }))) location.href = button.dataset.then ?? `${ROOT}/`;
  } else if (copy) {
    await navigator.clipboard.writeText(document.getElementById(copy).textContent);
    toast("Copied.");
  } else if (button.id === "compare") {
    const [first, ...others] = picked();
    location.href = `${ROOT}/experiments/${first}?compare=${others.join(",")}`;
  } else if ("stop" in button.dataset) {
    stopping = true;
  } else if ("dryRun" in button.dataset) {
    submitSpec(button.form, true);
  }
});

const article = $("[data-experiment]");
if (article && ["queued", "running"].includes(article.dataset.status)) follow(article);
if ($("#rows")) setInterval(() => $("#rows").hasAttribute("data-busy") && !document.hidden && refresh(), 3000);
if ($("[data-submit] select[name=preset]")) fillSpec($("[data-submit] select[name=preset]"));

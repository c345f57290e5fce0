import { Sound } from "./sound.js";

const $ = (id) => document.getElementById(id);
const SILENT = -40; // dB: faders are off there
const factor = (level) => (level <= SILENT ? 0 : 10 ** (level / 20));
const words = (level) => (level <= SILENT ? "off" : `${level} dB`);
const within = (least, x, most) => Math.max(least, Math.min(x, most));
const clock = (s) => new Date(1000 * s).toISOString().slice(s < 3600 ? 14 : 11, 19);
const pressed = (button) => button.getAttribute("aria-pressed") === "true";
const press = (button, on = !pressed(button)) => button.setAttribute("aria-pressed", on);
const say = (sentence) => ($("alert").textContent = sentence);
const chosen = () => new URLSearchParams({ model: $("models").value, mask: $("masks").value });
let about, key, events, state, sound, region, sending, shown, strips = [];

async function ask(path, options) {
  const answer = await fetch(path, options);
  if (answer.ok) return answer;
  throw new Error(await answer.text());
}

/** Starts a song on the server, and shows it. */
async function begin(path, body) {
  const { signal } = (sending = new AbortController());
  [$("choose").hidden, $("work").hidden, $("stage").textContent] = [true, false, "Sending"];
  $("progress").removeAttribute("value");
  try {
    open((await (await ask(path, { method: "POST", body, signal })).json()).key);
  } catch (error) {
    if (!signal.aborted) reset(error.message);
  }
}

function send(file) {
  leave();
  if (file.size > about.max_bytes) say(`${file.name} is larger than ${$("most").textContent}.`);
  else begin(`songs?${chosen()}&name=${encodeURIComponent(file.name)}`, file);
}

function open(newKey) {
  reset();
  key = newKey;
  history.replaceState(null, "", `#${key}`); // for a reload
  [$("choose").hidden, $("other").hidden] = [true, false];
  events = new EventSource(`songs/${key}/events`);
  events.onmessage = (event) => update(JSON.parse(event.data));
  events.onerror = () => {
    if (events.readyState === EventSource.CLOSED) reset("This song is no longer here.");
    else say("The player does not answer; it may have ended.");
  };
}

function reset(sentence = "") {
  events?.close();
  sound?.pause();
  sound?.context.close();
  sound = state = region = key = sending = events = null;
  strips = [];
  $("stems").replaceChildren();
  for (const id of ["work", "song", "other", "again", "downloads", "choose", "model"])
    $(id).hidden = !["choose", "model"].includes(id);
  for (const id of ["mixture", "loop"]) press($(id), false);
  history.replaceState(null, "", location.pathname);
  $("status").textContent = $("file").value = "";
  say(sentence);
}

/** Ends the song, or its upload. */
function leave(sentence) {
  sending?.abort();
  if (key) fetch(`songs/${key}`, { method: "DELETE" });
  reset(sentence);
}

function update(now) {
  const before = state, done = now.state === "done", left = now.seconds_left;
  if (now.state === "failed") return leave(now.message);
  state = now;
  say("");
  [$("name").textContent, $("model").hidden] = [now.name, !now.choice];
  if (!before && now.choice) [$("models").value, $("masks").value] = now.choice;
  if (!before) describe();
  const what = now.choice ? "Separating" : "Reading";
  const rest = left === null ? "" : `, ${clock(left)} left`;
  $("stage").textContent = now.state === "working" ? `${what}: ${now.percent} %${rest}`
    : `Waiting for its turn, songs ahead: ${now.ahead}`;
  if (now.percent) $("progress").value = now.percent / 100;
  else $("progress").removeAttribute("value");
  [$("work").hidden, $("downloads").hidden] = [done, !done];
  if (now.tracks.length && !sound) build(now);
  if (!sound || (now.percent === before?.percent && now.state === before.state)) return;
  if (done) $("status").textContent = `The stems of ${now.name} are ready. ${now.message}`;
  for (const { save } of strips) save.hidden = !done;
  draw();
}

function build(now) {
  const read = async (start, frames, signal) => new Float32Array(await (await ask(
    `songs/${now.key}/samples?start=${start}&frames=${frames}`, { signal })).arrayBuffer());
  const length = () => [state.frames, state.state === "done"];
  try {
    sound = new Sound(now.sample_rate, now.tracks.length, read, length);
  } catch (error) {
    return say(`This browser cannot play ${now.sample_rate} Hz: ${error.message}`);
  }
  sound.onerror = (error) => say(error.message);
  strips = now.tracks.map(strip);
  $("stems").append(...strips.slice(1).map(({ item }) => item));
  [$("zip").href, $("song").hidden] = [`songs/${key}/stems.zip`, false];
  draw();
  mix();
  loudness();
}

function strip(name, track) {
  const item = $("strip").content.firstElementChild.cloneNode(true), found = { item, track };
  for (const part of ["mute", "solo", "spectrum", "save", "gain", "pan", "picture"])
    found[part] = item.querySelector(`.${part}`);
  for (const control of item.querySelectorAll("button, input, a"))
    control.setAttribute("aria-label", `${name}: ${control.className}`);
  item.querySelector("h3").textContent = name;
  for (const button of [found.mute, found.solo]) button.onclick = () => (press(button), mix());
  found.spectrum.onclick = () => (press(found.spectrum), draw());
  for (const slider of [found.gain, found.pan])
    [slider.oninput, slider.ondblclick] = [mix, () => ((slider.value = 0), mix())];
  found.save.href = `songs/${key}/stem.wav?track=${track}`;
  found.picture.onpointerdown = point;
  return found;
}

/** Sets what is heard to what the controls say. */
function mix() {
  const stems = strips.slice(1), alone = stems.some(({ solo }) => pressed(solo));
  const compare = pressed($("mixture")), pans = stems.map(({ pan }) => pan.value);
  const gains = stems.map(({ mute, solo, gain }) =>
    pressed(mute) || (alone && !pressed(solo)) ? 0 : factor(+gain.value));
  sound.ramp(sound.strips[0].gain, +compare);
  stems.forEach(({ item, track, gain, pan }, i) => {
    sound.ramp(sound.strips[track].gain, compare ? 0 : gains[i]);
    sound.ramp(sound.strips[track].pan, +pan.value);
    item.classList.toggle("off", compare || !gains[i]);
    gain.setAttribute("aria-valuetext", words(+gain.value));
    pan.setAttribute("aria-valuetext", `${Math.round(100 * pan.value)} % to the right`);
  });
  $("mix").href = `songs/${key}/mix.wav?gains=${gains}&pans=${pans}`;
}

/** A click goes there; dragging loops what was dragged over. */
function point(down) {
  const picture = down.target, { left, width } = picture.getBoundingClientRect();
  const at = ({ clientX }) => Math.round(within(0, (clientX - left) / width, 1) * state.total);
  const dragged = (event) => Math.abs(event.clientX - down.clientX) > 8;
  picture.setPointerCapture(down.pointerId);
  picture.onpointermove = (event) => dragged(event) && (region = ordered(at(down), at(event)));
  picture.onpointerup = (event) =>
    dragged(event) ? setLoop(at(down), at(event)) : sound.seek(at(down));
  picture.onlostpointercapture = () => (picture.onpointermove = picture.onpointerup = null);
}

const ordered = (one, other) => ({ from: Math.min(one, other), until: Math.max(one, other) });
function setLoop(one, other, on = true) {
  region = Math.abs(one - other) > state.sample_rate / 20 ? ordered(one, other) : null;
  press($("loop"), Boolean(region) && on);
  $("loop").disabled = !region;
  sound.loop = pressed($("loop")) ? region : null;
  if (sound.playing) sound.seek(sound.position);
}

function draw() {
  for (const { item, track, picture, spectrum } of strips.slice(1)) {
    item.classList.toggle("spectral", pressed(spectrum));
    const [red, green, blue] = getComputedStyle(picture).color.match(/\d+/g);
    const columns = Math.ceil(picture.clientWidth / (pressed(spectrum) ? 1 : 3));
    const query = { track, of: state.frames, frames: state.total, columns, red, green, blue };
    const kind = pressed(spectrum) ? "spectrogram" : "waveform";
    picture.src = `songs/${key}/${kind}.png?${new URLSearchParams(query)}`;
  }
}

function animate() {
  requestAnimationFrame(animate);
  const at = sound?.position, look = `${[at, state?.total, region?.from, region?.until]}`;
  if (!sound || (look === shown && $("toggle").classList.contains("on") === sound.playing)) return;
  const rate = sound.rate, now = clock(at / rate), slider = $("position");
  shown = look;
  for (const [name, frame] of [["head", at], ["from", region?.from], ["until", region?.until]])
    $("stems").style.setProperty(`--${name}`, (frame ?? 0) / state.total);
  $("length").textContent = clock(state.total / rate);
  slider.max = state.total / rate;
  if (!slider.matches(":active")) slider.value = at / rate;
  $("toggle").classList.toggle("on", sound.playing);
  if ($("now").textContent === now) return;
  $("now").textContent = now;
  slider.setAttribute("aria-valuetext", `${now} of ${$("length").textContent}`);
}

function describe() {
  const rows = Object.entries(about.models[$("models").value].rows).flat();
  $("about").replaceChildren(...rows.map((textContent, i) =>
    Object.assign(document.createElement(i % 2 ? "dd" : "dt"), { textContent })));
  $("again").hidden = !state?.choice || `${state.choice}` === `${[...chosen().values()]}`;
}

function loudness(step = 0) {
  $("volume").value = +$("volume").value + step;
  $("volume").setAttribute("aria-valuetext", words(+$("volume").value));
  sound?.ramp(sound.master.gain, factor(+$("volume").value));
}

const jump = (seconds) =>
  sound.seek(within(0, sound.position + seconds * state.sample_rate, state.total));
const actions = {
  " ": () => (sound.playing ? sound.pause() : sound.play()),
  x: () => (press($("mixture")), mix()),
  a: () => setLoop(sound.position, region?.until > sound.position ? region.until : state.total),
  b: () => setLoop(region?.from < sound.position ? region.from : 0, sound.position),
  l: () => region && setLoop(region.from, region.until, !pressed($("loop"))),
  ArrowLeft: () => jump(-5), ArrowRight: () => jump(5),
  Home: () => jump(-Infinity), End: () => jump(Infinity),
  ArrowUp: () => loudness(2), ArrowDown: () => loudness(-2),
};
const buttons = { toggle: " ", mixture: "x", from: "a", until: "b", loop: "l" };
for (const [id, action] of Object.entries(buttons)) $(id).onclick = actions[action];
document.onkeydown = (event) => {
  const on = event.target, number = event.code.match(/^Digit([1-9])$/)?.[1];
  if (!sound || !$("keys").checked || event.ctrlKey || event.metaKey || event.altKey) return;
  if (on.matches("[type=range], select, [type=file]")) return; // these have keys of their own
  if (event.key === " " && on.matches("button, a, summary, input")) return;
  const action = actions[event.key] ?? actions[event.key.toLowerCase()];
  if (number) strips[number]?.[event.shiftKey ? "solo" : "mute"].click();
  else if (action) action();
  else return;
  event.preventDefault();
};
$("position").oninput = () => sound.seek(Math.round($("position").value * state.sample_rate));
$("volume").oninput = () => loudness();
$("cancel").onclick = $("other").onclick = () => (leave(), $("file").focus());
$("again").onclick = () => begin(`songs/${key}/again?${chosen()}`);
$("models").onchange = $("masks").onchange = describe;
$("file").onchange = () => $("file").files.length && send($("file").files[0]);
ondragover = ondrop = (event) => {
  event.preventDefault();
  if (event.type === "drop" && event.dataTransfer.files.length) send(event.dataTransfer.files[0]);
};
onresize = matchMedia("(prefers-color-scheme: dark)").onchange = draw;

about = await (await ask("about")).json();
$("most").textContent = `${about.max_bytes / 2 ** 20} MiB`;
$("models").append(...about.models.map(({ name }, i) => new Option(name, i)));
$("masks").append(...Object.entries(about.masks).map(([mask, text]) => new Option(text, mask)));
describe();
animate();
if (location.hash) open(location.hash.slice(1));
else if (about.given) begin(`songs/given?${chosen()}`);

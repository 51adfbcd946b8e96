"use strict";
const at = id => document.getElementById(id);
const show = (id, wanted = true) => { at(id).hidden = !wanted; };
const element = (tag, text = "", kind = "") => { const made = document.createElement(tag); made.textContent = text; if (kind) made.className = kind; return made; };

// Below this a block is silence; after so many of them in a row, tenths of a second, something is wrong.
const QUIET_DECIBELS = -50, QUIET_BLOCKS = 50, LOUD_PEAK = 0.99, LOUD_BLOCKS = 20;
// Lines that stay on the page, and sound that may wait to be heard, in seconds.
const MOST_LINES = 100, MOST_WAITING = 5;
const PART_BYTES = 1 << 18;

let socket = null, sound = null, way = "read", sentences = [], current = 0, needed = 30, rate = 48000, ended = false;
let sent = [], quiet = 0, loud = 0, pending = null;

function problem(text) { at("problem").textContent = text; show("problem", Boolean(text)); }

function say(message) { socket.send(JSON.stringify(message)); }

async function openMicrophone() {
  const media = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const context = new AudioContext();
  await context.audioWorklet.addModule("microphone.js");
  const node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  context.createMediaStreamSource(media).connect(node);
  return { media, context, node };
}

function closeMicrophone() {
  if (!sound) return;
  sound.node.port.onmessage = null;
  sound.media.getTracks().forEach(track => track.stop());
  sound.context.close();
  sound = null;
}

function heardBlock({ samples, peak, power }) {
  const decibels = Math.max(-60, 10 * Math.log10(power + 1e-9));
  at("level").value = decibels;
  at("level-text").textContent = `${decibels.toFixed(0)} dB`;
  quiet = decibels < QUIET_DECIBELS ? quiet + 1 : 0;
  loud = peak >= LOUD_PEAK ? LOUD_BLOCKS : Math.max(0, loud - 1);
  const late = socket.bufferedAmount / 2 / rate > MOST_WAITING;
  const warning = late ? "This computer cannot keep up; some of what you say is not heard. Close other tabs."
    : loud ? "Too loud: speak more softly, or turn the microphone down."
    : quiet >= QUIET_BLOCKS ? "Nothing is heard. Is this the right microphone, and is it on?" : "";
  at("warning").textContent = warning;
  show("warning", Boolean(warning));
  if (late || socket.readyState !== WebSocket.OPEN) return;
  sent.push(performance.now());
  socket.send(samples.buffer);
}

function nextSentence() {
  at("sentence").textContent = sentences[current % sentences.length].toLowerCase();
  at("count").textContent = `Sentence ${current + 1}.`;
  at("next").disabled = false;
}

// Words of one side: lines that stand, and those so far.
function write(side, heard) {
  const box = at(side), down = box.scrollHeight - box.scrollTop - box.clientHeight < 40;
  box.querySelectorAll(".unfinished, .note").forEach(each => each.remove());
  for (const line of heard.lines) box.append(element("p", line.words.join(" ").toLowerCase()));
  if (heard.unfinished.length) box.append(element("p", heard.unfinished.join(" ").toLowerCase(), "unfinished"));
  while (box.children.length > MOST_LINES) box.firstChild.remove();
  if (down) box.scrollTop = box.scrollHeight;
}

function told({ headline, tone, sentences: lines, rows }) {
  at("headline").textContent = headline;
  at("headline").className = `verdict ${tone}`;
  at("sentences").replaceChildren(...lines.map(line => element("p", line)));
  at("rows").replaceChildren(...rows.map(rowOf));
  show("recording", false);
  show("ending");
  at("headline").focus();
}

function rowOf(row) {
  const box = element("div", "", "row"), heard = element("dl", "", "for-listeners"), words = element("div", "", "words");
  for (const [side, text] of Object.entries(row.texts)) heard.append(element("dt", side), element("dd", text || "nothing"));
  words.setAttribute("aria-hidden", "true");
  const columnOf = (texts, kind) => {
    const column = element("span", "", `column ${kind}`);
    column.append(...texts.map(text => element("span", text === null ? "·" : text.toLowerCase())));
    return column;
  };
  words.append(columnOf(row.heads, "heads"), ...row.columns.map(column => columnOf(column.slice(0, -1), column[column.length - 1])));
  box.append(heard, words);
  return box;
}

const answers = {
  begun(message) {
    sentences = message.sentences;
    needed = message.needed;
    show("start", false);
    show("recording");
    show("reading", way === "read");
    show("speaking", way === "speak");
    show("choosing", way === "files");
    document.querySelectorAll(".of-microphone").forEach(each => { each.hidden = way === "files"; });
    at("seconds").max = needed;
    if (way === "read") { nextSentence(); at("next").focus(); }
    if (sound) sound.node.port.onmessage = event => heardBlock(event.data);
  },
  heard(message) {
    const when = sent.shift();
    if (when !== undefined) at("delay").textContent = `Words are ${((performance.now() - when) / 1000 + 0.1).toFixed(1)} s behind.`;
    write("without", message.without);
    if (message.adapted) write("adapted", message.adapted);
    at("seconds").value = message.seconds;
    at("seconds-text").textContent = `${message.seconds.toFixed(0)} of ${needed} s` + (message.full ? "; more is not kept" : "");
    at("finish").disabled = !message.seconds;
  },
  again(message) { problem(message.text); nextSentence(); },
  read() { problem(""); current++; nextSentence(); },
  learned() { at("learned").textContent = "New parameters since just now."; setTimeout(() => { at("learned").textContent = ""; }, 4000); },
  note(message) { at("learned").textContent = message.text; },
  send() { pending(); },
  file() { pending(); },
  working() { closeMicrophone(); show("working"); at("finish").disabled = at("next").disabled = true; },
  result: told,
  kept(message) {
    const recordings = message.recordings ? `, and your recordings in ${message.recordings}` : "";
    at("kept").textContent = `Kept: ${message.file}${recordings}`;
    problem("");
  },
  deleted() { ended = true; socket.close(); closeMicrophone(); show("recording", false); show("ending", false); show("gone"); },
  problem(message) {
    problem(message.text);
    if (pending) pending(message.text);
    if (!at("working").hidden) { show("working", false); at("finish").disabled = false; }
  },
};

// The answer to a file: "send" or "file"; a problem ends it.
const answer = () => new Promise((resolve, reject) => {
  pending = text => { pending = null; if (text) reject(new Error(text)); else resolve(); };
});

async function sendFile(file) {
  say({ do: "file", name: file.name.slice(0, 200), bytes: file.size });
  await answer();
  for (let begin = 0; begin < file.size; begin += PART_BYTES) {
    socket.send(await file.slice(begin, begin + PART_BYTES).arrayBuffer());
    while (socket.bufferedAmount > 8 * PART_BYTES) await new Promise(done => setTimeout(done, 20));
  }
  await answer();
}

at("start").addEventListener("submit", async event => {
  event.preventDefault();
  problem("");
  way = new FormData(event.target).get("way");
  try {
    if (way !== "files" && !sound) sound = await openMicrophone();
  } catch (error) {
    problem(`The microphone cannot be used (${error.message}). Allow it for this page, or give recordings.`);
    return;
  }
  rate = sound ? sound.context.sampleRate : 48000;
  const begin = () => say({ do: "begin", name: at("name").value.trim(), way, rate });
  if (socket && socket.readyState === WebSocket.OPEN) { begin(); return; }
  socket = new WebSocket(new URL("session", location.href.replace(/^http/, "ws")));
  socket.addEventListener("open", begin);
  socket.addEventListener("message", event => { const message = JSON.parse(event.data); answers[message.is](message); });
  socket.addEventListener("close", () => {
    closeMicrophone();
    if (pending) pending("the connection is closed");
    if (!ended && at("problem").hidden) problem("The connection is closed, and what was said is forgotten. Is lhuc-asr still running? Load the page again.");
  });
});
at("next").addEventListener("click", () => {
  at("next").disabled = true;
  say({ do: "sentence", number: current % sentences.length });
});
document.addEventListener("keydown", event => {
  if (event.key !== "Enter" || at("recording").hidden || at("reading").hidden || event.target.tagName === "BUTTON" && event.target.id !== "next") return;
  event.preventDefault();
  at("next").click();
});
at("files").addEventListener("change", async event => {
  event.target.disabled = true;
  problem("");
  for (const file of event.target.files) {
    try { await sendFile(file); } catch (error) { problem(error.message); }
  }
  event.target.value = "";
  event.target.disabled = false;
});
at("finish").addEventListener("click", () => { problem(""); say({ do: "finish" }); });
at("stop").addEventListener("click", () => say({ do: "delete" }));
at("delete").addEventListener("click", () => say({ do: "delete" }));
at("keeping").addEventListener("submit", event => {
  event.preventDefault();
  say({ do: "keep", recordings: at("with-recordings").checked, replace: at("replace").checked });
});

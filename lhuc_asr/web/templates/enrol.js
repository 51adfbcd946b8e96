"use strict";
const at = id => document.getElementById(id);
const show = (id, wanted = true) => { at(id).hidden = !wanted; };
const element = (tag, text = "", kind = "") => { const made = document.createElement(tag); made.textContent = text; if (kind) made.className = kind; return made; };

// Below this a block is silence; after so many of them in a row, tenths of a second, something is wrong.
const QUIET_DECIBELS = -50, QUIET_BLOCKS = 50, LOUD_PEAK = 0.99, LOUD_BLOCKS = 20;
// Lines that stay on the page, and blocks that may wait to be heard, tenths of a second.
const MOST_LINES = 100, MOST_WAITING = 50;
const PART_BYTES = 1 << 18;

let socket = null, sound = null, way = "read", sentences = [], current = 0, needed = 30, ended = false, working = false;
let sent = [], quiet = 0, loud = 0, pending = null, sending = false;

function problem(text) { at("problem").textContent = text; show("problem", Boolean(text)); }

function say(message) {
  if (socket && socket.readyState === WebSocket.OPEN) socket.send(JSON.stringify(message));
  else if (message.do === "delete") forgotten();  // the other side has forgotten it with the connection
}

// What can be pressed now.
function settle() {
  at("next").disabled = working;
  at("files").disabled = sending || working;
  at("finish").disabled = sending || working || !at("seconds").value;
  show("working", working);
}

function forgotten() {
  ended = true;
  closeMicrophone();
  ["start", "recording", "ending"].forEach(each => show(each, false));
  problem("");
  show("gone");
}

async function openMicrophone() {
  const media = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
  const context = new AudioContext();
  sound = { media, context, node: null };
  try {
    await context.audioWorklet.addModule("microphone.js");
    await context.resume();
  } catch (error) {
    closeMicrophone();
    throw error;
  }
  sound.node = new AudioWorkletNode(context, "microphone", { numberOfOutputs: 0 });
  context.createMediaStreamSource(media).connect(sound.node);
  media.getTracks().forEach(track => track.addEventListener("ended", () => problem("The microphone is gone. What was said so far is kept; press “That is enough”, or load the page again.")));
}

function closeMicrophone() {
  if (!sound) return;
  if (sound.node) sound.node.port.onmessage = null;
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
  const late = sent.length > MOST_WAITING;
  const warning = late ? "This computer cannot keep up; some of what you say is not heard. Close other tabs."
    : loud ? "Too loud: speak more softly, or turn the microphone down."
    : quiet >= QUIET_BLOCKS ? "Nothing is heard. Is this the right microphone, and is it on?" : "";
  at("warning").textContent = warning;
  show("warning", Boolean(warning));
  if (late || working || socket.readyState !== WebSocket.OPEN) return;
  sent.push(performance.now());
  socket.send(samples.buffer);
}

function nextSentence() {
  at("sentence").textContent = sentences[current % sentences.length].toLowerCase();
  at("count").textContent = `Sentence ${current + 1}.`;
  settle();
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
    const when = message.of === "sound" ? sent.shift() : undefined;
    if (when !== undefined) at("delay").textContent = `Words are ${((performance.now() - when) / 1000 + 0.1).toFixed(1)} s behind.`;
    write("without", message.without);
    if (message.adapted) write("adapted", message.adapted);
    at("seconds").value = message.seconds;
    at("seconds-text").textContent = `${message.seconds.toFixed(0)} of ${needed} s` + (message.full ? "; more is not kept" : "");
    settle();
  },
  again(message) { problem(message.text); nextSentence(); },
  read() { problem(""); current++; nextSentence(); },
  learned() { at("learned").textContent = "New parameters since just now."; setTimeout(() => { at("learned").textContent = ""; }, 4000); },
  note(message) { at("learned").textContent = message.text; },
  send() { if (pending) pending(); },
  file() { if (pending) pending(); },
  working() {},
  result(message) { working = false; closeMicrophone(); told(message); },
  kept(message) {
    const recordings = message.recordings ? `, and your recordings in ${message.recordings}` : "";
    at("kept").textContent = `Kept: ${message.file}${recordings}`;
    problem("");
  },
  deleted: forgotten,
  problem(message) {
    problem(message.text);
    if (pending) pending(message.text);
    at("begin").disabled = working = false;
    settle();
  },
};

// The answer to a file: "send" or "file"; a problem ends it.
const answer = () => new Promise((resolve, reject) => {
  pending = text => { pending = null; if (text) reject(new Error(text)); else resolve(); };
});

async function sendFile(file) {
  if (!file.size) throw new Error(`${file.name}: is empty`);
  say({ do: "file", name: [...file.name].slice(0, 200).join(""), bytes: file.size });
  await answer();
  const done = answer();
  done.catch(() => {});  // it is told below
  try {
    for (let begin = 0; begin < file.size && pending; begin += PART_BYTES) {
      socket.send(await file.slice(begin, begin + PART_BYTES).arrayBuffer());
      while (socket.bufferedAmount > 8 * PART_BYTES && pending) await new Promise(later => setTimeout(later, 20));
    }
  } catch (error) {
    if (pending) pending(`${file.name}: cannot be read (${error.message})`);
    say({ do: "abandon" });
  }
  await done;
}

function connect(begin) {
  socket = new WebSocket(new URL("session", location.href.replace(/^http/, "ws")));
  socket.addEventListener("open", begin);
  socket.addEventListener("message", event => { const message = JSON.parse(event.data); answers[message.is](message); });
  socket.addEventListener("close", () => {
    closeMicrophone();
    if (pending) pending("the connection is closed");
    const before = at("problem").hidden ? "" : `${at("problem").textContent} `;
    if (!ended) problem(`${before}The connection is closed, and what was said is forgotten. Is lhuc-asr still running? Load the page again.`);
    working = true;
    settle();
    show("working", false);
  });
}

at("start").addEventListener("submit", async event => {
  event.preventDefault();
  problem("");
  way = new FormData(event.target).get("way");
  at("begin").disabled = true;  // a second click would open a second microphone
  try {
    if (way === "files") closeMicrophone();
    else if (!sound) await openMicrophone();
    const rate = sound ? sound.context.sampleRate : 48000;
    const begin = () => say({ do: "begin", name: at("name").value.trim(), way, rate });
    if (socket && socket.readyState === WebSocket.OPEN) begin();
    else connect(begin);
  } catch (error) {
    problem(`The microphone cannot be used (${error.message}). Allow it for this page, or give recordings.`);
    at("begin").disabled = false;
  }
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
  problem("");
  sending = true;
  settle();
  for (const file of [...event.target.files]) {
    if (ended) return;
    try { await sendFile(file); } catch (error) { problem(error.message); }
  }
  event.target.value = "";
  sending = false;
  settle();
});
at("finish").addEventListener("click", () => {
  problem("");
  working = true;
  sent = [];  // what is under way may not be answered
  settle();
  say({ do: "finish" });
});
at("stop").addEventListener("click", () => say({ do: "delete" }));
at("delete").addEventListener("click", () => say({ do: "delete" }));
at("keeping").addEventListener("submit", event => {
  event.preventDefault();
  say({ do: "keep", recordings: at("with-recordings").checked, replace: at("replace").checked });
});

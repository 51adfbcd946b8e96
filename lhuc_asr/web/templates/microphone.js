"use strict";
// Blocks of a tenth of a second, as samples of 16 bits, with their loudest sample and mean square.
class Microphone extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(Math.round(sampleRate / 10));
    this.begin();
  }
  begin() { this.filled = 0; this.peak = 0; this.squares = 0; }
  process(inputs) {
    const channels = inputs[0];
    if (!channels.length) return true;
    for (let at = 0; at < channels[0].length; at++) {
      let value = 0;
      for (const channel of channels) value += channel[at] / channels.length;
      value = Math.max(-1, Math.min(1, value));
      this.peak = Math.max(this.peak, Math.abs(value));
      this.squares += value * value;
      this.block[this.filled++] = Math.round(value * 32767);
      if (this.filled === this.block.length) {
        this.port.postMessage({ samples: this.block.slice(), peak: this.peak, power: this.squares / this.filled });
        this.begin();
      }
    }
    return true;
  }
}
registerProcessor("microphone", Microphone);

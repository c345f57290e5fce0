// Keeps what is heard until it is taken.
registerProcessor("tap", class extends AudioWorkletProcessor {
  constructor() {
    super();
    [this.kept, this.heard] = [[], 0];
    this.port.onmessage = () => {
      const all = new Float32Array(this.kept.length * 10 * 128);
      this.kept.forEach((block, i) => all.set(block, i * 10 * 128));
      this.kept = [];
      this.port.postMessage(all.buffer, [all.buffer]);
    };
  }
  process([tracks, master]) {
    const block = new Float32Array(10 * 128);
    for (let c = 0; c < 8; c++) if (tracks[c]) block.set(tracks[c], c * 128);
    for (let c = 0; c < 2; c++) if (master[c]) block.set(master[c], (8 + c) * 128);
    if (block.some((x) => x)) {
      this.kept.push(block);
      this.port.postMessage((this.heard += 128));
    }
    return true;
  }
});

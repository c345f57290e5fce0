// Taps what enters the splitter, at most 8 channels, and the two that leave for the loudspeakers.
const Real = AudioContext, connect = AudioNode.prototype.connect;
window.heard = 0;
window.AudioContext = class extends Real {
  constructor(options) {
    super(options);
    this.targets = [];
    this.audioWorklet.addModule("tap.js").then(() => {
      const settings = { numberOfInputs: 2, channelCount: 32, channelCountMode: "explicit",
        channelInterpretation: "discrete" };
      this.tap = window.tap = new AudioWorkletNode(this, "tap", settings);
      window.tap.port.onmessage = ({ data }) => {
        if (typeof data === "number") window.heard = data;
        else window.got(data); // [10 channels, 128 samples] again and again
      };
      connect.call(this.tap, this.destination);
      for (const [node, input] of this.targets) connect.call(node, this.tap, 0, input);
    }, () => {}); // a page that is left, or a song that is cancelled, ends the loading
  }
};
AudioNode.prototype.connect = function (to, ...where) {
  const input = to instanceof ChannelSplitterNode ? 0 : to === this.context.destination ? 1 : null;
  if (input !== null && this.context.tap) connect.call(this, this.context.tap, 0, input);
  else if (input !== null) this.context.targets.push([this, input]);
  return connect.call(this, to, ...where);
};
window.take = () => new Promise((resolve) => {
  window.got = (data) => {
    const letters = Array.from(new Uint8Array(data), (byte) => String.fromCharCode(byte));
    resolve(btoa(letters.join("")));
  };
  window.tap.port.postMessage("take");
});

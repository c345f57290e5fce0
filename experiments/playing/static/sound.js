// Plays the tracks of a song. One buffer holds all of them, so they cannot part; memory holds only
// the seconds ahead. The context runs at the song's own rate, so nothing is resampled.
const PIECE = 0.5, AHEAD = 2.5, FADE = 0.01; // seconds

export class Sound {
  /** @param read (start, frames, signal) -> promise of a Float32Array [count, 2, frames]
   *  @param length () -> [frames that can be read, whether that is all] */
  constructor(rate, count, read, length) {
    const context = new AudioContext({ sampleRate: rate });
    Object.assign(this, { context, rate, count, read, length, playing: false, stopped: 0 });
    (this.master = new GainNode(context)).connect(context.destination);
    this.splitter = new ChannelSplitterNode(context, { numberOfOutputs: 2 * count });
    this.strips = Array.from({ length: count }, (_, i) => {
      const merger = new ChannelMergerNode(context, { numberOfInputs: 2 });
      for (const side of [0, 1]) this.splitter.connect(merger, 2 * i + side, side);
      const [gain, pan] = [new GainNode(context), new StereoPannerNode(context)];
      merger.connect(gain).connect(pan).connect(this.master);
      return { gain: gain.gain, pan: pan.pan };
    });
  }

  /** Sets an AudioParam without a click; it is exact after a few milliseconds. */
  ramp(param, value, time = this.context.currentTime, from = param.value) {
    param.cancelScheduledValues(time);
    param.setValueAtTime(from, time);
    param.linearRampToValueAtTime(value, time + FADE);
  }

  /** The sample that is heard now. */
  get position() {
    if (!this.run) return this.stopped;
    const now = this.context.currentTime * this.rate, { pieces, next } = this.run;
    while (pieces.length > 1 && pieces[1].at <= now) pieces.shift();
    const { at, from, frames } = pieces[0] ?? { at: now, from: next, frames: 0 };
    return Math.round(from + Math.min(Math.max(now - at, 0), frames));
  }

  async play() {
    this.playing = true;
    await this.context.resume();
    if (this.playing && !this.run) this.start();
  }

  pause(position = this.position) {
    [this.playing, this.stopped] = [false, position];
    if (!this.run) return;
    const { edge, abort } = this.run;
    this.run = null;
    abort.abort();
    this.ramp(edge.gain, 0);
    setTimeout(() => edge.disconnect(), 20 * 1000 * FADE);
  }

  seek(position) {
    const playing = this.playing;
    this.pause(position);
    if (playing) this.play();
  }

  start() {
    const edge = new GainNode(this.context, { gain: 0, channelInterpretation: "discrete" });
    edge.connect(this.splitter); // it fades all tracks, at the ends of what is heard
    this.run = { edge, abort: new AbortController(), next: this.stopped, at: 0, pieces: [] };
    this.fill(this.run).catch((error) => error.name === "AbortError" || this.onerror(error));
  }

  /** Schedules one piece after the other, at exact samples of the context's clock. */
  async fill(run) {
    while (this.run === run) {
      const [there, all] = this.length(), loop = this.loop;
      if (loop && run.next === loop.until) run.next = loop.from;
      const until = loop && run.next < loop.until ? loop.until : there;
      const frames = Math.min(Math.min(until, there) - run.next, Math.round(PIECE * this.rate));
      const ahead = run.at / this.rate - this.context.currentTime;
      if (frames > 0 && ahead < AHEAD) {
        const samples = await this.read(run.next, frames, run.abort.signal);
        if (this.run === run) this.schedule(run, frames, samples);
      } else {
        if (frames <= 0 && all && ahead < 0) return this.pause(0);
        if (frames <= 0 && run.audible && ahead < 0.15) { // the separation is slower
          this.ramp(run.edge.gain, 0, run.at / this.rate - FADE, 1);
          run.audible = false;
        }
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  schedule(run, frames, samples) {
    const buffer = this.context.createBuffer(2 * this.count, frames, this.rate);
    for (let c = 0; c < 2 * this.count; c++)
      buffer.copyToChannel(samples.subarray(c * frames, (c + 1) * frames), c);
    const soonest = Math.ceil((this.context.currentTime + 0.03) * this.rate);
    if (run.at < soonest) [run.at, run.audible] = [soonest, false]; // nothing is left out
    if (!run.audible) this.ramp(run.edge.gain, 1, run.at / this.rate, 0);
    run.audible = true;
    const source = new AudioBufferSourceNode(this.context, { buffer });
    source.connect(run.edge);
    source.start(run.at / this.rate);
    run.pieces.push({ at: run.at, from: run.next, frames });
    [run.at, run.next] = [run.at + frames, run.next + frames];
  }
}

// Runs LiteRT files in turn and times each run. browser.py calls measure().

import {loadAndCompile, loadLiteRt, Tensor} from '@litertjs/core';

const ARRAYS = {float32: Float32Array, uint8: Uint8Array};

async function prepare(number, threads) {
  const model = await loadAndCompile(
      `/files/${number}.tflite`, {accelerator: 'wasm', cpuOptions: {numThreads: threads}});
  const {dtype, shape} = model.getInputDetails()[0];
  const response = await fetch(`/files/${number}.input`);
  const data = new ARRAYS[dtype](await response.arrayBuffer());
  return {model, input: new Tensor(data, Array.from(shape)), milliseconds: []};
}

async function run(file) {
  const started = performance.now();
  const [output] = await file.model.run(file.input);
  const elapsed = performance.now() - started;
  const values = Array.from(output.toTypedArray());
  output.delete();
  return {elapsed, values};
}

// Runs all files in turn for some seconds, but at least `fewest` rounds, after a warm-up.
// Returns, for each, the milliseconds of every timed run and the output of the last.
async function measure({count, threads, seconds, fewest, warmup}) {
  await loadLiteRt('/node_modules/@litertjs/core/wasm/', {threads: threads > 1});
  const files = [];
  for (let number = 0; number < count; number++) {
    files.push(await prepare(number, threads));
  }
  for (let round = 0; round < warmup; round++) {
    for (const file of files) {
      await run(file);
    }
  }
  const ends = performance.now() + 1000 * seconds;
  for (let round = 0; round < fewest || performance.now() < ends; round++) {
    for (const file of files) {
      const {elapsed, values} = await run(file);
      file.milliseconds.push(elapsed);
      file.output = values;
    }
  }
  return files.map(({milliseconds, output}) => ({milliseconds, output}));
}

window.measure = measure;

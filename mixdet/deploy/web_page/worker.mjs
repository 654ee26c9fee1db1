// Runs the network beside the page, which stays responsive: a message for each picture, and one back with what is in it.

import * as ort from './ort/ort.wasm.bundle.min.mjs';
import {checkMetadata, detections, networkInput} from './detector.mjs';

const STRIP = 256; // rows of a picture that are read at once: browsers limit the size of a canvas

const detector = load();
detector.then(
  ({metadata}) => postMessage({metadata, runtime: ort.env.versions.web, threads: ort.env.wasm.numThreads}),
  (error) => postMessage({failure: error.message}),
);
let turn = Promise.resolve(); // one picture after the other

addEventListener('message', ({data: {id, bitmap}}) => {
  turn = turn.then(() => detect(bitmap)).then(
    (result) => postMessage({id, ...result}),
    (error) => postMessage({id, error: error.message}),
  );
});

async function load() {
  const response = await fetch(new URL('mixdet.json', import.meta.url));
  if (!response.ok) {
    throw new Error(`mixdet.json: ${response.status} ${response.statusText}`);
  }
  const metadata = checkMetadata(await response.json());
  ort.env.wasm.wasmPaths = {wasm: new URL('ort/ort-wasm-simd-threaded.wasm', import.meta.url).href};
  const model = new URL('model.onnx', import.meta.url).href;
  return {metadata, session: await ort.InferenceSession.create(model, {executionProviders: ['wasm']})};
}

async function detect(bitmap) {
  const {metadata, session} = await detector;
  const {width, height} = bitmap;
  const start = performance.now();
  const input = networkInput(rowsOf(bitmap), width, height, metadata);
  bitmap.close();
  const prepared = performance.now();
  const outputs = await session.run({image: new ort.Tensor('float32', input, [1, 3, ...metadata.input_size])});
  const found = detections(outputs, width, height, metadata);
  return {width, height, found, prepare: prepared - start, network: performance.now() - prepared};
}

/** A function that gives a row of a bitmap as RGBA bytes, reading strip after strip from the top. */
function rowsOf(bitmap) {
  const canvas = new OffscreenCanvas(bitmap.width, Math.min(STRIP, bitmap.height));
  const context = canvas.getContext('2d', {willReadFrequently: true});
  context.globalCompositeOperation = 'copy';
  let top = -Infinity;
  let bytes;
  return (y) => {
    if (y < top || y >= top + canvas.height) {
      top = y;
      context.drawImage(bitmap, 0, -top);
      bytes = context.getImageData(0, 0, canvas.width, canvas.height).data;
    }
    return bytes.subarray(4 * canvas.width * (y - top), 4 * canvas.width * (y - top + 1));
  };
}

// From the pixels of a picture to its detections, computed as mixdet computes them. Nothing here knows of the page.

/** The metadata that tools/export.py wrote (mixdet.json), with what is not understood refused. */
export function checkMetadata(metadata) {
  if (!(metadata.resize in RESIZES)) {
    throw new Error(`resize "${metadata.resize}" is not one of ${Object.keys(RESIZES).join(', ')}`);
  }
  return metadata;
}

/**
 * The input of the network: a picture resized, normalised and as planes, Float32Array of 3 x height x width, RGB.
 * rowAt(y) gives the picture's row y as RGBA bytes; it is called with y that never falls.
 */
export function networkInput(rowAt, width, height, {resize, input_size: [newHeight, newWidth], mean, std}) {
  const pixels = RESIZES[resize](rowAt, width, height, newWidth, newHeight);
  const plane = newWidth * newHeight;
  const input = new Float32Array(3 * plane);
  for (let channel = 0; channel < 3; channel++) {
    const [average, deviation] = [Math.fround(mean[channel]), Math.fround(std[channel])];
    for (let i = 0; i < plane; i++) {
      input[channel * plane + i] = Math.fround(pixels[3 * i + channel] - average) / deviation;
    }
  }
  return input;
}

/** The network's outputs for a picture of width x height px: {label, score, box: [x1, y1, x2, y2] in px}, best first. */
export function detections({boxes, scores, labels}, width, height, {input_size: [inputHeight, inputWidth]}) {
  const scale = [width / inputWidth, height / inputHeight];
  return Array.from(scores.data, (score, i) => ({
    label: Number(labels.data[i]),
    score,
    box: Array.from(boxes.data.subarray(4 * i, 4 * i + 4), (value, side) => value * scale[side % 2]),
  })).filter(({score}) => score > 0);
}

/** OpenCV's bilinear resize of bytes without antialiasing, in its own fixed-point numbers: RGB, height x width x 3. */
export function resizeAsOpenCV(rowAt, width, height, newWidth, newHeight) {
  if (width === 2 * newWidth && height === 2 * newHeight) {
    return halve(rowAt, newWidth, newHeight); // where OpenCV takes the mean of four
  }
  const across = fixedPoint(width, newWidth);
  for (let x = 0; x < newWidth; x++) {
    if (across.first[x] < 0 || across.first[x] >= width - 1) {
      [across.near[x], across.far[x]] = [ONE, 0];
    }
  }
  const down = fixedPoint(height, newHeight);
  const line = cached((y) => {
    const row = rowAt(y);
    const values = new Int32Array(3 * newWidth);
    for (let x = 0, to = 0; x < newWidth; x++) {
      const low = 4 * Math.max(across.first[x], 0);
      const high = 4 * Math.min(across.first[x] + 1, width - 1);
      for (let channel = 0; channel < 3; channel++) {
        values[to++] = (row[low + channel] * across.near[x] + row[high + channel] * across.far[x]) >> 4;
      }
    }
    return values;
  });
  const pixels = new Float32Array(3 * newWidth * newHeight);
  for (let y = 0, to = 0; y < newHeight; y++) {
    const upper = line(Math.max(down.first[y], 0));
    const lower = line(Math.min(down.first[y] + 1, height - 1));
    for (let x = 0; x < 3 * newWidth; x++) {
      pixels[to++] = (((upper[x] * down.near[y]) >> 16) + ((lower[x] * down.far[y]) >> 16) + 2) >> 2;
    }
  }
  return pixels;
}

/** TensorFlow 1's tf.image.resize_bilinear: without the half-pixel shift and without rounding to integers. */
export function resizeAsTensorFlow(rowAt, width, height, newWidth, newHeight) {
  const across = positions(width, newWidth);
  const down = positions(height, newHeight);
  const row = cached((y) => Uint8Array.from(rowAt(y))); // two are needed at once
  const blended = new Float32Array(4 * width);
  const pixels = new Float32Array(3 * newWidth * newHeight);
  for (let y = 0, to = 0; y < newHeight; y++) {
    const upper = row(down.low[y]);
    const lower = row(down.high[y]);
    for (let x = 0; x < 4 * width; x++) {
      blended[x] = upper[x] + (lower[x] - upper[x]) * down.share[y];
    }
    for (let x = 0; x < newWidth; x++) {
      for (let channel = 0; channel < 3; channel++) {
        const near = blended[4 * across.low[x] + channel];
        const far = blended[4 * across.high[x] + channel];
        pixels[to++] = near + Math.fround(far - near) * across.share[x];
      }
    }
  }
  return pixels;
}

const RESIZES = {Resize: resizeAsOpenCV, TFResize: resizeAsTensorFlow};
const ONE = 2048; // OpenCV's weights have 11 bits

function halve(rowAt, newWidth, newHeight) {
  const pixels = new Float32Array(3 * newWidth * newHeight);
  for (let y = 0, to = 0; y < newHeight; y++) {
    const upper = Uint8Array.from(rowAt(2 * y));
    const lower = rowAt(2 * y + 1);
    for (let x = 0; x < newWidth; x++) {
      for (let from = 8 * x; from < 8 * x + 3; from++) {
        pixels[to++] = (upper[from] + upper[from + 4] + lower[from] + lower[from + 4] + 2) >> 2;
      }
    }
  }
  return pixels;
}

/** For each new pixel the old one before it, which may be -1, and the weights of that one and the next. */
function fixedPoint(size, newSize) {
  const first = new Int32Array(newSize);
  const near = new Int32Array(newSize);
  const far = new Int32Array(newSize);
  for (let i = 0; i < newSize; i++) {
    const position = Math.fround((i + 0.5) * (1 / (newSize / size)) - 0.5); // as OpenCV computes the scale
    first[i] = Math.floor(position);
    const share = Math.fround(position - first[i]);
    near[i] = roundHalfToEven(Math.fround(1 - share) * ONE);
    far[i] = roundHalfToEven(share * ONE);
  }
  return {first, near, far};
}

function roundHalfToEven(value) {
  const rounded = Math.round(value);
  return rounded - value === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}

function positions(size, newSize) {
  const low = new Int32Array(newSize);
  const high = new Int32Array(newSize);
  const share = new Float64Array(newSize);
  for (let i = 0; i < newSize; i++) {
    const position = Math.fround(i * Math.fround(size / newSize));
    low[i] = Math.min(Math.trunc(position), size - 1);
    high[i] = Math.min(low[i] + 1, size - 1);
    share[i] = position - low[i];
  }
  return {low, high, share};
}

/** make(y), remembering the last two results. */
function cached(make) {
  const kept = [];
  return (y) => {
    const found = kept.find((entry) => entry.y === y);
    if (found) {
      return found.value;
    }
    const value = make(y);
    kept.unshift({y, value});
    kept.length = Math.min(kept.length, 2);
    return value;
  };
}

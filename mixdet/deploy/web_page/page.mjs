// The page: pictures and the camera in, boxes out. The detector itself runs in worker.mjs.

const $ = (id) => document.getElementById(id);
const worker = new Worker(new URL('worker.mjs', import.meta.url), {type: 'module'});
const waiting = new Map(); // what to do with the answer to each message
const cards = new Map(); // the results of each picture by its card
let classes = [];
let pending = 0;
let sent = 0;

worker.addEventListener('message', ({data}) => {
  if (data.metadata) {
    start(data);
  } else if (data.failure) {
    say(`The detector cannot be started: ${data.failure}`, true);
  } else {
    const {resolve, reject} = waiting.get(data.id);
    waiting.delete(data.id);
    if (data.error) {
      reject(new Error(data.error));
    } else {
      resolve(data);
    }
  }
});
worker.addEventListener('error', (event) => say(`The detector cannot be started: ${event.message || 'worker.mjs'}`, true));
say('Loading the detector …');

function start({metadata, runtime, threads}) {
  classes = metadata.classes;
  const [height, width] = metadata.input_size;
  const facts = {
    network: metadata.config,
    classes: `${classes.length}: ${classes.join(', ')}`,
    input: `${width} × ${height} px, ${metadata.resize}`,
    made: `by mixdet ${metadata.version}, run by onnxruntime-web ${runtime} with ${threads} thread${threads === 1 ? '' : 's'}`,
  };
  for (const [name, value] of Object.entries(facts)) {
    $('about').querySelector('dl').append(element('dt', name), element('dd', value));
  }
  $('about').hidden = false;
  document.title = `${metadata.config} · mixdet`;
  $('files').disabled = $('camera').disabled = false;
  say('Ready.');
}

/** The objects in a bitmap, which is handed over, and how long that took. */
function detect(bitmap) {
  const id = sent++;
  return new Promise((resolve, reject) => {
    waiting.set(id, {resolve, reject});
    worker.postMessage({id, bitmap}, [bitmap]);
  });
}

// Pictures

$('files').addEventListener('change', () => {
  add($('files').files);
  $('files').value = ''; // so that the same picture can be chosen again
});
document.addEventListener('paste', (event) => add(event.clipboardData.files));
for (const type of ['dragenter', 'dragover', 'dragleave', 'drop']) {
  document.addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.toggle('dropping', type === 'dragenter' || type === 'dragover');
    if (type === 'drop') {
      add(event.dataTransfer.files);
    }
  });
}

async function add(files) {
  if ($('files').disabled || !files.length) {
    return;
  }
  const made = Array.from(files, (file) => {
    const card = $('picture-card').content.firstElementChild.cloneNode(true);
    card.querySelector('h2').textContent = file.name;
    return {file, card};
  });
  $('results').prepend(...made.map(({card}) => card));
  $('clear').hidden = false;
  pending += made.length;
  for (const {file, card} of made) {
    say(`${pending} picture${pending === 1 ? '' : 's'} to go …`);
    if (card.isConnected) { // not removed meanwhile
      await look(file, card);
    }
    pending--;
  }
  if (!pending) {
    say('Done.');
  }
}

async function look(file, card) {
  try {
    // as a detector reads it in Python: turned by its EXIF orientation, without its colour profile
    const bitmap = await createImageBitmap(file, {
      imageOrientation: 'from-image',
      colorSpaceConversion: 'none',
      premultiplyAlpha: 'none',
    });
    const image = card.querySelector('img');
    [image.width, image.height] = [bitmap.width, bitmap.height];
    image.src = URL.createObjectURL(file);
    const result = await detect(bitmap);
    if (card.isConnected) {
      cards.set(card, result);
      show(card);
    }
  } catch (error) {
    card.querySelector('.picture').hidden = true;
    const line = card.querySelector('.summary');
    line.textContent = error.name === 'InvalidStateError' ? 'This browser cannot read it as a picture.' : error.message;
    line.classList.add('bad');
  }
}

$('clear').addEventListener('click', () => {
  for (const image of $('results').querySelectorAll('img[src]')) {
    URL.revokeObjectURL(image.src);
  }
  cards.clear();
  $('results').replaceChildren();
  $('clear').hidden = true;
  $('files').focus();
});

$('score').addEventListener('input', () => {
  $('score-shown').textContent = Number($('score').value).toFixed(2);
  cards.forEach((_, card) => show(card));
});

/** Draw the boxes of a picture, and fill in what is said about it. */
function show(card) {
  const result = cards.get(card);
  const found = draw(card, result);
  card.querySelector('img').alt = `${card.querySelector('h2').textContent}: ${summary(found)}`;
  card.querySelector('details').hidden = !found.length;
  card.querySelector('tbody').replaceChildren(...found.map(({label, score, box}) => {
    const row = element('tr');
    const name = element('th', classes[label]);
    name.scope = 'row';
    row.append(name, cell(score, 2), ...box.map((side) => cell(side, 1)));
    return row;
  }));
}

/** A cell of the table with a rounded number, and the number itself for programs. */
function cell(value, digits) {
  const number = element('data', value.toFixed(digits));
  number.value = value;
  const made = element('td');
  made.append(number);
  return made;
}

/** Lay the boxes with at least the score asked for over the picture in a card, and count them; returns them. */
function draw(card, {width, height, found, prepare, network}) {
  const place = card.querySelector('.picture');
  const shown = found.filter(({score}) => score >= Number($('score').value));
  place.querySelectorAll('i').forEach((old) => old.remove());
  for (const {label, score, box} of shown.toReversed()) { // the best on top
    const [left, right] = [box[0], box[2]].map((side) => 100 * Math.min(Math.max(side / width, 0), 1));
    const [top, bottom] = [box[1], box[3]].map((side) => 100 * Math.min(Math.max(side / height, 0), 1));
    const frame = element('i');
    frame.setAttribute('aria-hidden', 'true'); // the table says the same
    frame.append(element('b', `${classes[label]} ${score.toFixed(2)}`));
    frame.classList.toggle('inside', top < 8);
    frame.classList.toggle('left', left > 70);
    Object.assign(frame.style, {left: `${left}%`, top: `${top}%`, width: `${right - left}%`, height: `${bottom - top}%`});
    frame.style.setProperty('--color', `oklch(0.82 0.16 ${(label * 137.5) % 360})`); // neighbours differ most
    place.append(frame);
  }
  card.querySelector('.summary').textContent = summary(shown);
  const time = `${(prepare + network).toFixed(0)}\xa0ms (network ${network.toFixed(0)}\xa0ms)`;
  card.querySelector('.summary + p').textContent = `${width} × ${height} px · ${time}`;
  return shown;
}

/** The objects by class: person × 2, dog. */
function summary(found) {
  const counts = new Map();
  for (const {label} of found) {
    counts.set(classes[label], (counts.get(classes[label]) ?? 0) + 1);
  }
  return Array.from(counts, ([name, count]) => (count > 1 ? `${name}\xa0×\xa0${count}` : name)).join(', ') || 'no object';
}

// The camera

let stream = null;

$('camera').addEventListener('click', () => (stream ? stop() : film()));
addEventListener('pagehide', stop);

async function film() {
  if (!navigator.mediaDevices) {
    say('Browsers allow the camera on https pages and on localhost only.', true);
    return;
  }
  $('camera').disabled = true;
  try {
    stream = await navigator.mediaDevices.getUserMedia({video: {facingMode: 'environment'}});
  } catch (error) {
    say(`The camera cannot be used: ${error.message}`, true);
    return;
  } finally {
    $('camera').disabled = false;
  }
  const mine = stream;
  mine.getVideoTracks()[0].addEventListener('ended', stop); // unplugged
  $('video').srcObject = mine;
  $('live').hidden = false;
  $('camera').textContent = 'Stop the camera';
  say('The camera runs.');
  try {
    await $('video').play();
    while (stream === mine) {
      const result = await detect(await createImageBitmap($('video')));
      draw($('live'), result);
    }
  } catch (error) {
    if (stream === mine) { // not stopped meanwhile
      stop();
      say(`The camera has stopped: ${error.message}`, true);
    }
  }
}

function stop() {
  if (stream) {
    stream.getTracks().forEach((track) => track.stop());
    stream = null;
    $('live').hidden = true;
    $('camera').textContent = 'Use the camera';
    say('The camera is off.');
  }
}

function element(name, text = '') {
  const made = document.createElement(name);
  made.textContent = text;
  return made;
}

function say(text, bad = false) {
  $('status').textContent = text;
  $('status').classList.toggle('bad', bad);
}

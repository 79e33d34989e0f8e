// The map of jose-embed: reads the parts of its own file, draws the points with WebGL2 and answers without any request.
// Texts, ids, labels and values are data: they enter the page by textContent alone.
"use strict";
(async () => {
const $ = (id) => document.getElementById(id);
const SUBSPACES = 16, CENTROIDS = 256;
const LIGHT = ["#2a2dca", "#d55e00", "#316d3a", "#78548f", "#ff9900", "#6cbdc6", "#710f51", "#8e7e3e", "#3a0071", "#47004c"];
const DARK = ["#676aec", "#f1943c", "#23b176", "#9b8db8", "#ffb332", "#adbde3", "#b2587c", "#c3d567", "#8e51c3", "#ffebf5"];
const RAMP = ["#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838"];
const NONE = 255, DIMMED = 0, SHOWN = 1, MARKED = 2;

// ---- the parts of the file ------------------------------------------------------------------------------------------

function fromBase64(text) {
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const raw = atob(text), out = new Uint8Array(raw.length);
  for (let i = 0; i < raw.length; i++) out[i] = raw.charCodeAt(i);
  return out;
}

async function part(name, keep = false) {
  const node = $("part-" + name);
  if (!node) return null;
  const bytes = fromBase64(node.textContent.trim());
  if (!keep) node.remove();
  if (node.dataset.packed === undefined) return bytes;
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

const json = (bytes) => JSON.parse(new TextDecoder().decode(bytes));
const numbers = (bytes, kind) => new kind(bytes.buffer, bytes.byteOffset, bytes.byteLength / kind.BYTES_PER_ELEMENT);

function problem(text) {
  $("wait").hidden = false;
  $("wait").style.display = "";
  $("wait").textContent = text;
}

if (!window.DecompressionStream) {
  problem("This browser is too old for this map; any current Firefox, Chrome, Edge or Safari shows it.");
  return;
}
const about = json(await part("about"));
const n = about.n;
$("wait").textContent = `Reading ${n.toLocaleString("en")} documents ...`;
await new Promise((next) => setTimeout(next));
const positions = numbers(await part("positions"), Uint16Array);
const columns = [];
for (let i = 0; i < about.columns.length; i++) columns.push(await part("column-" + i));
const codes = await part("codes");
const rows = about.rows ? numbers(await part("rows"), Uint32Array) : null;
const codebook = numbers(await part("codebook"), Float32Array);   // SUBSPACES x CENTROIDS x width, without the mean
const mean = Float32Array.from(about.mean), dim = mean.length, width = dim / SUBSPACES;
const wordCodes = numbers(await part("words"), Int8Array);        // int8 (words, dim), one factor each
const words = about.words, wordNumbers = new Map(words.map((word, i) => [word, i]));
const wordScales = numbers(fromBase64(about.word_scales), Float32Array);
const wordWeights = numbers(fromBase64(about.word_weights), Float32Array);
const wordReliability = numbers(fromBase64(about.word_reliability), Float32Array);

const blocks = new Map();                                          // blocks of documents, the most recent last
async function block(i) {
  if (!blocks.has(i)) blocks.set(i, part("texts-" + i, true).then(json));
  const found = blocks.get(i);
  blocks.delete(i);
  blocks.set(i, found);
  if (blocks.size > 64) blocks.delete(blocks.keys().next().value);
  return found;
}

async function documentOf(point) {                                // {id, text, fields}
  if (!about.starts.length) return { id: String(rows[point] + 1), text: null, fields: null };
  let low = 0, high = about.starts.length - 1;
  while (low < high) {
    const middle = (low + high + 1) >> 1;
    if (about.starts[middle] <= point) low = middle; else high = middle - 1;
  }
  const [id, text, values] = (await block(low))[point - about.starts[low]];
  const fields = values && about.fields.map((name, i) => [name, values[i]]).filter(([, value]) => value !== null);
  return { id: id ?? String(rows[point] + 1), text, fields };
}

// ---- the view -------------------------------------------------------------------------------------------------------

const stage = $("stage"), canvas = $("points"), over = $("over"), pen = over.getContext("2d");
const view = { x: .5, y: .5, zoom: 1 };
let wide = 0, high = 0, ratio = 1, scale = 1, theme = "light";
let changed = true, asked = false, drawn = 0, budget = Math.min(n, 60000), lastFrame = 0, moved = 0;
const stats = { script: [], calls: 0, frames: 0, drawn: 0, ready: 0 };

const margins = () => (wide > 720 ? { left: 344, right: wide > 1000 ? 276 : 20, top: 20, bottom: 20 } : { left: 12, right: 12, top: 112, bottom: 24 });
function middle() {
  const { left, right, top, bottom } = margins();
  return [(left + wide - right) / 2, (top + high - bottom) / 2];
}
function fit() {
  const { left, right, top, bottom } = margins();
  const [w, h] = about.extent;
  return .94 * Math.min((wide - left - right) / w, (high - top - bottom) / h);
}
const toScreen = (x, y) => { const [cx, cy] = middle(); return [(x - view.x) * scale + cx, (y - view.y) * scale + cy]; };
const toMap = (sx, sy) => { const [cx, cy] = middle(); return [(sx - cx) / scale + view.x, (sy - cy) / scale + view.y]; };
const px = (i) => positions[2 * i] / 65535, py = (i) => positions[2 * i + 1] / 65535;

function resized() {
  wide = innerWidth; high = innerHeight; ratio = Math.min(devicePixelRatio || 1, 2);
  for (const each of [canvas, over]) { each.width = Math.round(wide * ratio); each.height = Math.round(high * ratio); }
  redraw();
}
function redraw(byHand = false) {
  changed = true;
  if (byHand) moved = performance.now();
  if (!asked) { asked = true; requestAnimationFrame(frame); }
}
function zoomTo(zoom, sx, sy) {
  const [mx, my] = toMap(sx, sy);
  view.zoom = Math.min(200, Math.max(.5, zoom));
  scale = fit() * view.zoom;
  const [cx, cy] = middle();
  view.x = mx - (sx - cx) / scale; view.y = my - (sy - cy) / scale;
  redraw(true);
}
function show(x, y, zoom) {
  [view.x, view.y, view.zoom] = [x, y, zoom];
  scale = fit() * zoom;                                           // a key may ask for words before the next frame
  redraw(true);
}
const showAll = () => show(about.extent[0] / 2, about.extent[1] / 2, 1);

// ---- points: one draw call ------------------------------------------------------------------------------------------

const gl = canvas.getContext("webgl2", { alpha: false, antialias: false, preserveDrawingBuffer: true });
if (!gl) {
  problem("The points cannot be drawn: this browser has no WebGL 2. Allow hardware acceleration, or use another browser.");
  return;
}
const VERTEX = `#version 300 es
in vec2 place; in float colour; in float state;
uniform vec2 shift; uniform vec2 stretch; uniform float size; uniform float alpha; uniform sampler2D palette; uniform vec3 faint;
out vec4 tint; out float radius;
void main() {
  gl_Position = vec4((place * stretch + shift), 0.0, 1.0);
  vec3 own = texelFetch(palette, ivec2(int(colour), 0), 0).rgb;
  tint = state < 0.5 ? vec4(faint, alpha * 0.55) : vec4(own, state > 1.5 ? 1.0 : alpha);
  radius = state > 1.5 ? size * 1.5 + 1.5 : state < 0.5 ? size * 0.85 : size;
  gl_PointSize = radius + 1.0;
}`;
const FRAGMENT = `#version 300 es
precision mediump float;
in vec4 tint; in float radius; out vec4 result;
void main() {
  float away = length(gl_PointCoord - 0.5) * (radius + 1.0);
  float cover = radius < 2.0 ? 1.0 : clamp(radius * 0.5 - away + 0.5, 0.0, 1.0);
  if (cover <= 0.0) discard;
  result = vec4(tint.rgb * tint.a * cover, tint.a * cover);
}`;
let program, uniforms, buffers, palette;
const state = new Uint8Array(n).fill(SHOWN);
let column = 0;

function prepare() {
  const compiled = (kind, source) => {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    return shader;
  };
  program = gl.createProgram();
  gl.attachShader(program, compiled(gl.VERTEX_SHADER, VERTEX));
  gl.attachShader(program, compiled(gl.FRAGMENT_SHADER, FRAGMENT));
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) {
    if (!gl.isContextLost()) problem("The points cannot be drawn: " + gl.getProgramInfoLog(program));
    return;
  }
  gl.useProgram(program);
  uniforms = Object.fromEntries(["shift", "stretch", "size", "alpha", "palette", "faint"].map((name) => [name, gl.getUniformLocation(program, name)]));
  buffers = {};
  for (const [name, size, kind, data, normal] of [
    ["place", 2, gl.UNSIGNED_SHORT, positions, true], ["colour", 1, gl.UNSIGNED_BYTE, columns[column], false], ["state", 1, gl.UNSIGNED_BYTE, state, false],
  ]) {
    const at = gl.getAttribLocation(program, name);
    buffers[name] = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.DYNAMIC_DRAW);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, kind, normal, 0, 0);
  }
  palette = gl.createTexture();
  gl.bindTexture(gl.TEXTURE_2D, palette);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
  gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
  gl.enable(gl.BLEND);
  gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  coloured();
}
function upload(name, data) {
  gl.bindBuffer(gl.ARRAY_BUFFER, buffers[name]);
  gl.bufferSubData(gl.ARRAY_BUFFER, 0, data);
}
const rgb = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));

function pointSize() {
  const crowd = Math.max(1.2, Math.min(7, 5.2 * Math.pow(3000 / n, .28)));
  return Math.min(16, crowd * Math.pow(Math.max(view.zoom, .7), .38)) * ratio;
}

function frame(now) {
  const begun = performance.now();
  asked = false;
  const resting = begun - moved > 200;
  if (lastFrame && !resting && now > lastFrame) {                  // a GPU that is slow gets fewer points while one moves
    const took = now - lastFrame;
    if (took > 45) budget = Math.max(Math.min(n, 20000), Math.round(budget * .75));
    else if (took < 25) budget = Math.min(n, Math.round(budget * 1.3));
  }
  lastFrame = now;
  if (changed) {
    changed = false;
    drawn = 0;
    scale = fit() * view.zoom;
    const [cx, cy] = middle(), back = rgb(theme === "dark" ? "#14161a" : "#fbfaf8");
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(back[0] / 255, back[1] / 255, back[2] / 255, 1);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniform2f(uniforms.stretch, 2 * scale / wide, -2 * scale / high);
    gl.uniform2f(uniforms.shift, 2 * (cx - view.x * scale) / wide - 1, 1 - 2 * (cy - view.y * scale) / high);
    gl.uniform1f(uniforms.size, pointSize());
    gl.uniform1f(uniforms.alpha, n > 200000 ? .7 : .85);
    const faint = rgb(theme === "dark" ? "#33373e" : "#dfdcd7");
    gl.uniform3f(uniforms.faint, faint[0] / 255, faint[1] / 255, faint[2] / 255);
    placeLabels();
    drawOver();
  }
  const count = Math.min(drawn === 0 || resting ? budget : 0, n - drawn);
  if (count > 0) {
    gl.drawArrays(gl.POINTS, drawn, count);
    stats.calls++;
    drawn += count;
  }
  stats.drawn = drawn;
  stats.frames++;
  stats.script.push(performance.now() - begun);
  if (stats.script.length > 500) stats.script.shift();
  if (drawn < n && !asked) { asked = true; requestAnimationFrame(frame); }
}
canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
canvas.addEventListener("webglcontextrestored", () => { prepare(); redraw(); });

// ---- labels: fewer where there is no room ---------------------------------------------------------------------------

const labels = about.labels.map((label) => {
  const node = document.createElement("div");
  node.className = "label " + (label.level ? "place" : "topic");
  node.dir = "auto";
  node.textContent = label.text;
  if (!label.level) node.style.setProperty("--size", (13 + 4 * Math.sqrt(label.share)).toFixed(1) + "px");
  $("labels").append(node);
  return { ...label, node, w: 0, h: 0, on: false, x: label.x / 65535, y: label.y / 65535 };
});
function measureLabels() { for (const label of labels) { label.w = label.node.offsetWidth; label.h = label.node.offsetHeight; } }
function placeLabels() {
  const taken = [], headed = wide > 720 ? 0 : 100;
  for (const label of labels) {
    let on = view.zoom >= label.zoom && (!filtered || label.level || !label.dim);
    let sx = 0, sy = 0;
    if (on) {
      [sx, sy] = toScreen(label.x, label.y);
      sx = Math.round(sx - label.w / 2); sy = Math.round(sy - label.h / 2);
      on = sx > -label.w / 2 && sx < wide - label.w / 2 && sy > headed && sy < high - label.h;
      sx = Math.max(4, Math.min(sx, wide - label.w - 4)); // at the edge it is moved, not cut
      const gap = label.level ? 8 : 3;
      on = on && !taken.some(([x, y, w, h]) => sx < x + w + gap && x < sx + label.w + gap && sy < y + h + gap && y < sy + label.h + gap);
    }
    if (on) {
      taken.push([sx, sy, label.w, label.h]);
      label.node.style.transform = `translate(${sx}px,${sy}px)`;
    }
    if (on !== label.on) { label.on = on; label.node.style.visibility = on ? "visible" : "hidden"; }
  }
  stats.labels = taken.length;
}

// ---- a grid that finds the point under the pointer ------------------------------------------------------------------

const SIDE = Math.max(1, Math.min(512, Math.ceil(Math.sqrt(n / 4))));
const cellStart = new Uint32Array(SIDE * SIDE + 1), inCell = new Uint32Array(n);
const cellOf = (value) => Math.min(SIDE - 1, Math.floor(value * SIDE));
{
  const cells = new Uint32Array(n);
  for (let i = 0; i < n; i++) cellStart[(cells[i] = cellOf(py(i)) * SIDE + cellOf(px(i))) + 1]++;
  for (let i = 0; i < SIDE * SIDE; i++) cellStart[i + 1] += cellStart[i];
  const next = cellStart.slice(0, -1);
  for (let i = 0; i < n; i++) inCell[next[cells[i]]++] = i;
}
function inBox(x0, y0, x1, y1, visit) {
  const limit = (value) => Math.max(0, Math.min(SIDE - 1, Math.floor(value * SIDE)));
  for (let row = limit(y0); row <= limit(y1); row++) {
    for (let at = cellStart[row * SIDE + limit(x0)]; at < cellStart[row * SIDE + limit(x1) + 1]; at++) {
      const i = inCell[at], x = px(i), y = py(i);
      if (x >= x0 && x <= x1 && y >= y0 && y <= y1) visit(i, x, y);
    }
  }
}
function nearestTo(sx, sy, reach) {
  const [x, y] = toMap(sx, sy), r = reach / scale;
  let best = -1, least = r * r;
  inBox(x - r, y - r, x + r, y + r, (i, px, py) => {
    const away = (px - x) ** 2 + (py - y) ** 2;
    if (away < least && !(filtered && state[i] === DIMMED)) { least = away; best = i; }
  });
  return best;
}

// ---- colours --------------------------------------------------------------------------------------------------------

let filtered = false;
const chosen = new Set();
let shades = [];

function categoryShades(info, data) {
  const colours = theme === "dark" ? DARK : LIGHT, k = info.values.length;
  if (k <= colours.length) return info.values.map((_, i) => colours[i]);
  const sums = new Float64Array(3 * k), out = [];                 // neighbours on the map get different colours
  for (let i = 0; i < n; i += Math.max(1, n >> 17)) {
    const c = data[i];
    if (c < k) { sums[3 * c] += px(i); sums[3 * c + 1] += py(i); sums[3 * c + 2]++; }
  }
  const at = (c) => [sums[3 * c] / (sums[3 * c + 2] || 1), sums[3 * c + 1] / (sums[3 * c + 2] || 1)];
  for (let c = 0; c < k; c++) {
    let best = c % colours.length, farthest = -1;
    if (c >= colours.length) colours.forEach((_, shade) => {
      let least = Infinity;
      for (let d = 0; d < c; d++) if (out[d] === shade) least = Math.min(least, Math.hypot(at(c)[0] - at(d)[0], at(c)[1] - at(d)[1]));
      if (least > farthest) { farthest = least; best = shade; }
    });
    out.push(best);
  }
  return out.map((shade) => colours[shade]);
}
function ramped(share) {
  const at = (theme === "dark" ? .25 + .75 * share : .9 * share) * (RAMP.length - 1), low = Math.min(RAMP.length - 2, Math.floor(at));
  const [a, b] = [rgb(RAMP[low]), rgb(RAMP[low + 1])];
  return "#" + a.map((v, i) => Math.round(v + (b[i] - v) * (at - low)).toString(16).padStart(2, "0")).join("");
}
function coloured() {
  const info = about.columns[column], grey = theme === "dark" ? "#777c86" : "#a6a49f";
  shades = info.values ? categoryShades(info, columns[column]) : Array.from({ length: NONE }, (_, i) => ramped(i / (NONE - 1)));
  const texels = new Uint8Array(256 * 4);
  for (let i = 0; i < 256; i++) texels.set([...rgb(shades[i] ?? grey), 255], 4 * i);
  gl.bindTexture(gl.TEXTURE_2D, palette);
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, texels);
  upload("colour", columns[column]);
  legend();
  redraw();
}
function element(name, kind, text) {
  const node = document.createElement(name);
  if (kind) node.className = kind;
  if (text !== undefined) node.textContent = text;
  return node;
}
function legend() {
  const info = about.columns[column], keys = $("keys"), held = keys.contains(document.activeElement) ? document.activeElement.dataset.key : null;
  keys.replaceChildren();
  if (!info.values) {
    const ramp = element("div", "ramp"), ends = element("div", "ends");
    ramp.style.background = `linear-gradient(to right, ${[0, 60, 127, 190, 254].map((i) => shades[i]).join(",")})`;
    ends.append(element("span", "", info.least), element("span", "", info.most));
    keys.append(ramp, ends);
    return;
  }
  const grey = theme === "dark" ? "#777c86" : "#a6a49f";
  const listed = info.values.map((value, i) => [i, value, info.counts[i]]);
  if (info.none) listed.push([NONE, info.none_name, info.none]);
  for (const [i, value, count] of listed) {
    const key = element("button", "key"), swatch = element("span", "swatch"), name = element("span", "", value === "" ? "(empty)" : value);
    key.setAttribute("aria-pressed", chosen.has(i));
    key.title = value;
    key.dataset.key = i;
    swatch.style.background = shades[i] ?? grey;
    name.dir = "auto";
    key.append(swatch, name, element("i", "", count.toLocaleString("en")));
    key.onclick = () => { if (!chosen.delete(i)) chosen.add(i); found = null; filter(); legend(); };
    keys.append(key);
    if (String(i) === held) key.focus();
  }
}

// Which points are dimmed and marked: those of the chosen colours, and what a search found.
let found = null;
function filter() {
  const data = columns[column];
  filtered = chosen.size > 0 || found !== null;
  for (let i = 0; i < n; i++) state[i] = chosen.size && !chosen.has(data[i]) ? DIMMED : SHOWN;
  if (found) {
    state.fill(DIMMED);
    for (const i of found) state[i] = found.length > n / 20 ? SHOWN : MARKED;
  }
  for (const label of labels) label.dim = column === 0 && chosen.size > 0 && !chosen.has(label.topic);
  upload("state", state);
  redraw();
}

// ---- vectors: product codes and words -------------------------------------------------------------------------------

function decoded(point) {
  const vector = Float32Array.from(mean);
  for (let s = 0; s < SUBSPACES; s++) {
    const from = (s * CENTROIDS + codes[point * SUBSPACES + s]) * width;
    for (let d = 0; d < width; d++) vector[s * width + d] += codebook[from + d];
  }
  return vector;
}
const lengths = new Float32Array(n);                              // of the decoded vectors
{
  const table = new Float32Array(SUBSPACES * CENTROIDS);
  let own = 0;
  for (let d = 0; d < dim; d++) own += mean[d] * mean[d];
  for (let s = 0; s < SUBSPACES; s++) for (let c = 0; c < CENTROIDS; c++) {
    let sum = 0;
    for (let d = 0; d < width; d++) { const v = codebook[(s * CENTROIDS + c) * width + d]; sum += v * v + 2 * v * mean[s * width + d]; }
    table[s * CENTROIDS + c] = sum;
  }
  for (let i = 0; i < n; i++) {
    let sum = own;
    for (let s = 0; s < SUBSPACES; s++) sum += table[s * CENTROIDS + codes[i * SUBSPACES + s]];
    lengths[i] = Math.sqrt(Math.max(sum, 1e-12));
  }
}
function nearestPoints(query, k, without = -1) {                  // [[point, cosine], ...], best first
  const table = new Float32Array(SUBSPACES * CENTROIDS);
  let base = 0, norm = 0;
  for (let d = 0; d < dim; d++) { base += query[d] * mean[d]; norm += query[d] * query[d]; }
  norm = Math.sqrt(norm) || 1;
  for (let s = 0; s < SUBSPACES; s++) for (let c = 0; c < CENTROIDS; c++) {
    let sum = 0;
    for (let d = 0; d < width; d++) sum += query[s * width + d] * codebook[(s * CENTROIDS + c) * width + d];
    table[s * CENTROIDS + c] = sum;
  }
  const best = [];
  let least = -Infinity;
  for (let i = 0; i < n; i++) {
    let sum = base;
    for (let s = 0, at = i * SUBSPACES; s < SUBSPACES; s++) sum += table[s * CENTROIDS + codes[at + s]];
    const cosine = sum / (norm * lengths[i]);
    if (cosine <= least || i === without) continue;
    let at = best.length;
    while (at > 0 && best[at - 1][1] < cosine) at--;
    best.splice(at, 0, [i, cosine]);
    if (best.length > k) { best.pop(); }
    if (best.length === k) least = best[k - 1][1];
  }
  return best;
}
function wordVector(word) {
  const vector = new Float32Array(dim);
  for (let d = 0; d < dim; d++) vector[d] = wordCodes[word * dim + d] * wordScales[word];
  return vector;
}
let centred = null;                                               // directions of the words without the mean
function wordsOf(direction, k) {                                  // [[word, score], ...] as Embeddings.words_of
  if (!centred) {
    centred = new Float32Array(words.length * dim);
    for (let w = 0; w < words.length; w++) {
      const vector = wordVector(w);
      let norm = 0;
      for (let d = 0; d < dim; d++) { vector[d] -= mean[d]; norm += vector[d] ** 2; }
      norm = Math.sqrt(norm) || 1;
      for (let d = 0; d < dim; d++) centred[w * dim + d] = vector[d] / norm;
    }
  }
  let norm = 0;
  for (let d = 0; d < dim; d++) norm += direction[d] ** 2;
  norm = Math.sqrt(norm) || 1;
  const scored = [];
  for (let w = 0; w < words.length; w++) {
    let sum = 0;
    for (let d = 0; d < dim; d++) sum += centred[w * dim + d] * direction[d];
    scored.push([w, wordReliability[w] * sum / norm]);
  }
  return scored.sort((a, b) => b[1] - a[1]).slice(0, k);
}
function wordsOfPoints(points) {                                  // by the mean of their decoded vectors, less the mean of all
  const counts = new Float64Array(SUBSPACES * CENTROIDS), direction = new Float32Array(dim);
  for (const i of points) for (let s = 0; s < SUBSPACES; s++) counts[s * CENTROIDS + codes[i * SUBSPACES + s]] += 1 / lengths[i];
  for (let s = 0; s < SUBSPACES; s++) for (let c = 0; c < CENTROIDS; c++) {
    const times = counts[s * CENTROIDS + c];
    if (times) for (let d = 0; d < width; d++) direction[s * width + d] += times * codebook[(s * CENTROIDS + c) * width + d];
  }
  return wordsOf(direction, 16);
}

// ---- the overlay: the point under the pointer, the selected one and its neighbours ----------------------------------

let hovered = -1, selected = -1, neighbours = [], region = null;
function drawOver() {
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.clearRect(0, 0, wide, high);
  const ink = theme === "dark" ? "#eceae6" : "#1d2026", size = pointSize() / ratio / 2;
  const ring = (i, extra, line) => {
    const [x, y] = toScreen(px(i), py(i));
    pen.lineWidth = line;
    pen.beginPath();
    pen.arc(x, y, size + extra, 0, 7);
    pen.stroke();
  };
  pen.strokeStyle = ink;
  if (selected >= 0) {
    const [x, y] = toScreen(px(selected), py(selected));
    pen.globalAlpha = .45;
    pen.lineWidth = 1;
    for (const [i] of neighbours) {
      pen.beginPath();
      pen.moveTo(x, y);
      pen.lineTo(...toScreen(px(i), py(i)));
      pen.stroke();
    }
    pen.globalAlpha = 1;
    for (const [i] of neighbours) ring(i, 1.5, 1.2);
    ring(selected, 4, 2.5);
  }
  if (hovered >= 0) ring(hovered, 3, 1.6);
  if (region) {
    const [x0, y0] = toScreen(region[0], region[1]), [x1, y1] = toScreen(region[2], region[3]);
    pen.setLineDash([5, 4]);
    pen.lineWidth = 1.2;
    pen.strokeRect(x0, y0, x1 - x0, y1 - y0);
    pen.setLineDash([]);
  }
}

// ---- panel ----------------------------------------------------------------------------------------------------------

const content = $("content");
let turn = 0;                                                     // an answer that comes late is dropped
function open(heading, ...nodes) {
  $("heading").textContent = heading;
  content.replaceChildren(...nodes);
  content.scrollTop = 0;
  $("panel").hidden = false;
  document.body.classList.add("sheeted");
  if (wide <= 720) legendShown(false);
  return ++turn;
}
function close() {
  turn++;
  $("panel").hidden = true;
  document.body.classList.remove("sheeted");
  selected = -1; neighbours = []; region = null; found = null;
  chosen.clear();
  filter();
  legend();
}
function legendShown(on) {
  $("legend").hidden = !on;
  $("colours").setAttribute("aria-pressed", on);
}
const say = (text) => { $("status").textContent = text; };
const isLong = (text, most) => text.length > most;
const cut = (text, most) => (isLong(text, most) ? Array.from(text.slice(0, most + 1)).slice(0, -1).join("") + " ..." : text);

function marked(text, terms) {                                    // the part of a text around the first term, with marks
  const lower = text.toLowerCase();
  if (lower.length !== text.length) return [cut(text, 160)];
  let first = Infinity;
  for (const term of terms) { const at = lower.indexOf(term); if (at >= 0) first = Math.min(first, at); }
  const from = first === Infinity ? 0 : Math.max(0, first - 40), piece = text.slice(from, from + 180), low = piece.toLowerCase();
  const out = [from ? "... " : ""];
  for (let at = 0; at < piece.length;) {
    let next = piece.length, length = 0;
    for (const term of terms) { const i = low.indexOf(term, at); if (i >= 0 && (i < next || (i === next && term.length > length))) { next = i; length = term.length; } }
    out.push(piece.slice(at, next));
    if (length) out.push(element("mark", "", piece.slice(next, next + length)));
    at = next + (length || 1);
  }
  if (from + 180 < text.length) out.push(" ...");
  return out;
}
function hit(point, doc, note, terms = []) {
  const button = element("button", "hit"), id = element("b", "", doc.id), span = element("span");
  id.dir = "auto";
  if (note) button.append(element("i", "", note));
  button.append(id);
  if (doc.text) { span.append(...marked(doc.text, terms)); button.append(span); }
  else if (doc.fields?.length) { span.textContent = doc.fields.map(([name, value]) => `${name}: ${shown(value)}`).join(", "); button.append(span); }
  button.onclick = () => choose(point, true);
  button.onmouseenter = button.onfocus = () => { hovered = point; redraw(); };
  button.onmouseleave = button.onblur = () => { hovered = -1; redraw(); };
  return button;
}
const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
function chips(list) {
  const box = element("div", "chips");
  for (const [word, score] of list) {
    const chip = element("button", "chip", words[word]);
    chip.dir = "auto";
    chip.title = `score ${score.toFixed(2)}; search for it`;
    chip.onclick = () => { $("query").value = words[word]; search(words[word]); };
    box.append(chip);
  }
  return box;
}

async function choose(point, travel = false) {
  selected = point;
  neighbours = nearestPoints(decoded(point), Math.min(10, n - 1), point);
  region = null;
  if (travel) {
    const [sx, sy] = toScreen(px(point), py(point)), zoom = Math.max(view.zoom, 2.5);
    const bottom = wide > 720 ? high - 60 : high * .45;
    if (sx < (wide > 720 ? 360 : 20) || sx > wide - 40 || sy < 60 || sy > bottom || zoom > view.zoom) show(px(point), py(point), zoom);
    if (wide <= 720) view.y += (high * .2) / (fit() * view.zoom);
  }
  redraw();
  const own = ++turn, doc = await documentOf(point);
  if (own !== turn) return;
  const nodes = [];
  if (doc.text !== null && doc.text !== undefined) {
    const text = element("p", "text", doc.text);
    text.dir = "auto";
    nodes.push(text);
  }
  const list = element("dl");
  for (const [name, value] of doc.fields ?? []) list.append(element("dt", "", name), element("dd", "", shown(value)));
  for (let i = 0; i < columns.length; i++) {
    const info = about.columns[i], value = columns[i][point];
    if (!info.kept && value !== NONE && info.values) list.append(element("dt", "", info.name), element("dd", "", info.values[value]));
  }
  for (const cell of list.children) cell.dir = "auto";
  if (list.children.length) nodes.push(list);
  nodes.push(element("h3", "", `Nearest of ${n.toLocaleString("en")} documents (approximate, recall ${about.recall.toFixed(2)})`));
  const docs = await Promise.all(neighbours.map(([i]) => documentOf(i)));
  if (own !== turn) return;
  docs.forEach((each, i) => nodes.push(hit(neighbours[i][0], each, neighbours[i][1].toFixed(2))));
  open(doc.id, ...nodes);
  say(`Document ${cut(doc.id, 80)}`);
}

function regionWords(points, what) {
  if (!points.length) { open(what, element("p", "small", "No document is here.")); return; }
  const nodes = [element("p", "small", `${points.length.toLocaleString("en")} of ${n.toLocaleString("en")} documents`)];
  if (points.length > .9 * n) nodes.push(element("p", "", "This is almost the whole map, which has no words of its own. Zoom in, or draw a box (b)."));
  else nodes.push(element("p", "small", "Words that set them apart:"), chips(wordsOfPoints(points)));
  const own = open(what, ...nodes), step = Math.max(1, Math.floor(points.length / 8));
  const some = points.filter((_, i) => i % step === 0).slice(0, 8);
  Promise.all(some.map(documentOf)).then((docs) => {
    if (own !== turn) return;
    content.append(element("h3", "", points.length > 8 ? "Some of the documents" : "Documents"), ...docs.map((doc, i) => hit(some[i], doc, "")));
  });
  say(`${points.length} documents`);
}
function wordsHere() {
  const { left, right, top, bottom } = margins(), points = [];
  const [x0, y0] = toMap(wide > 720 ? left : 0, wide > 720 ? 0 : top - 10), [x1, y1] = toMap(wide, high);
  inBox(x0, y0, x1, y1, (i) => { if (!(filtered && state[i] === DIMMED)) points.push(i); });
  selected = -1; neighbours = []; region = null;
  regionWords(points, "Documents in view");
  redraw();
}

// ---- search ---------------------------------------------------------------------------------------------------------

async function search(text) {
  const query = text.normalize("NFC").trim(), terms = [...new Set(query.toLowerCase().split(/\s+/).filter(Boolean))];
  if (!terms.length) { close(); return; }
  selected = -1; neighbours = []; region = null;
  chosen.clear();
  const known = terms.filter((term) => wordNumbers.has(term)), nodes = [], progress = element("p", "small", "Searching ...");
  const direction = new Float32Array(dim);
  for (const term of known) {
    const w = wordNumbers.get(term), vector = wordVector(w);
    for (let d = 0; d < dim; d++) direction[d] += wordWeights[w] * vector[d];
  }
  const near = known.length ? nearestPoints(direction, 10) : [];
  if (known.length) {
    const own = direction.map((value) => value), norm = Math.hypot(...own) || 1;
    const related = wordsOf(own.map((value, d) => value / norm - mean[d]), 14).filter(([w]) => !terms.includes(words[w]));
    nodes.push(element("h3", "", "Related words"), chips(related.slice(0, 10)));
  } else {
    const alike = words.map((word, i) => [i, word]).filter(([, word]) => terms.some((term) => term.length > 1 && word.startsWith(term))).slice(0, 10);
    if (alike.length) nodes.push(element("h3", "", "Words of the map"), chips(alike.map(([i]) => [i, wordReliability[i]])));
  }
  const inTexts = element("div"), byMeaning = element("div");
  const own = open(query, progress, ...nodes, byMeaning, inTexts);
  if (near.length) {
    const docs = await Promise.all(near.map(([i]) => documentOf(i)));
    if (own !== turn) return;
    byMeaning.append(element("h3", "", "By meaning"), ...docs.map((doc, i) => hit(near[i][0], doc, near[i][1].toFixed(2), terms)));
  }
  const matches = [], first = [];
  const look = (point, doc) => {
    const all = [doc.id, doc.text ?? "", ...(doc.fields ?? []).map(([, value]) => shown(value))].join("\n").toLowerCase();
    if (terms.every((term) => all.includes(term))) { matches.push(point); if (first.length < 50) first.push([point, doc]); }
  };
  if (about.starts.length) {
    for (let b = 0; b < about.starts.length; b++) {
      const start = about.starts[b], documents = await block(b);
      if (own !== turn) return;
      documents.forEach(([id, text, values], i) => look(start + i, {
        id: id ?? String(rows[start + i] + 1), text,
        fields: values && about.fields.map((name, f) => [name, values[f]]).filter(([, value]) => value !== null),
      }));
      if (b % 16 === 15) progress.textContent = `Searching ... ${Math.round(100 * b / about.starts.length)} %`;
    }
  } else for (let i = 0; i < n; i++) if (terms.length === 1 && String(rows[i] + 1) === terms[0]) look(i, { id: String(rows[i] + 1) });
  const where = about.texts ? "texts" : "ids";
  progress.textContent = matches.length ? `${matches.length.toLocaleString("en")} ${where} contain ${terms.length > 1 ? "these words" : "it"}` :
    near.length ? `No ${where.slice(0, -1)} contains ${terms.length > 1 ? "all of them" : "it"}.` : `Nothing was found. Try another word, or fewer.`;
  if (first.length) inTexts.append(element("h3", "", `In the ${where}`), ...first.map(([i, doc]) => hit(i, doc, "", terms)));
  if (matches.length > first.length) inTexts.append(element("p", "small", `The first ${first.length} are listed; all are marked on the map.`));
  found = matches.length ? matches : near.map(([i]) => i);
  if (!found.length) found = null;
  filter();
  legend();
  say(progress.textContent);
}

// ---- pointer --------------------------------------------------------------------------------------------------------

const pointers = new Map();
let drag = null, pinch = null, boxing = false;
function boxMode(on) {
  boxing = on;
  $("select").setAttribute("aria-pressed", on);
  stage.classList.toggle("boxing", on);
}
stage.addEventListener("pointerdown", (event) => {
  if (event.button !== 0) return;
  stage.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, [event.clientX, event.clientY]);
  hideTip();
  if (pointers.size === 2) {
    const [a, b] = [...pointers.values()];
    pinch = { far: Math.hypot(a[0] - b[0], a[1] - b[1]), zoom: view.zoom };
    drag = null;
  } else drag = { x: event.clientX, y: event.clientY, fromX: event.clientX, fromY: event.clientY, far: false, box: boxing || event.shiftKey };
});
stage.addEventListener("pointermove", (event) => {
  const { clientX: x, clientY: y } = event;
  if (pointers.has(event.pointerId)) pointers.set(event.pointerId, [x, y]);
  if (pinch && pointers.size === 2) {
    const [a, b] = [...pointers.values()];
    zoomTo(pinch.zoom * Math.hypot(a[0] - b[0], a[1] - b[1]) / pinch.far, (a[0] + b[0]) / 2, (a[1] + b[1]) / 2);
  } else if (drag) {
    if (!drag.far && Math.hypot(x - drag.fromX, y - drag.fromY) < 4) return;
    drag.far = true;
    if (drag.box) {
      const box = $("box");
      box.hidden = false;
      Object.assign(box.style, { left: Math.min(x, drag.fromX) + "px", top: Math.min(y, drag.fromY) + "px",
        width: Math.abs(x - drag.fromX) + "px", height: Math.abs(y - drag.fromY) + "px" });
    } else {
      stage.classList.add("dragging");
      view.x -= (x - drag.x) / scale; view.y -= (y - drag.y) / scale;
      redraw(true);
    }
    drag.x = x; drag.y = y;
  } else if (event.pointerType === "mouse") hover(x, y);
});
function lifted(event) {
  pointers.delete(event.pointerId);
  if (pinch) { if (pointers.size < 2) pinch = null; drag = null; return; }
  const done = drag;
  drag = null;
  stage.classList.remove("dragging");
  $("box").hidden = true;
  if (!done || event.type === "pointercancel") return;
  if (!done.far) {
    const point = nearestTo(event.clientX, event.clientY, event.pointerType === "mouse" ? 12 : 22);
    if (point >= 0) choose(point); else if (!$("panel").hidden && selected >= 0) close();
  } else if (done.box) {
    const [x0, y0] = toMap(Math.min(done.fromX, done.x), Math.min(done.fromY, done.y)), [x1, y1] = toMap(Math.max(done.fromX, done.x), Math.max(done.fromY, done.y));
    const points = [];
    inBox(x0, y0, x1, y1, (i) => { if (!(filtered && state[i] === DIMMED)) points.push(i); });
    boxMode(false);
    selected = -1; neighbours = [];
    region = [x0, y0, x1, y1];
    regionWords(points, "Selected documents");
    redraw();
  }
}
stage.addEventListener("pointerup", lifted);
stage.addEventListener("pointercancel", lifted);
stage.addEventListener("pointerleave", () => { if (!drag) { hideTip(); if (hovered >= 0) { hovered = -1; redraw(); } } });
stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  hideTip();
  zoomTo(view.zoom * Math.exp(-event.deltaY * (event.deltaMode ? .05 : event.ctrlKey ? .01 : .0018)), event.clientX, event.clientY);
}, { passive: false });
stage.addEventListener("dblclick", (event) => zoomTo(view.zoom * 2, event.clientX, event.clientY));

function hideTip() { $("tip").hidden = true; }
async function hover(x, y) {
  const point = nearestTo(x, y, 10);
  stage.classList.toggle("over", point >= 0);
  if (point === hovered) { if (point >= 0) placeTip(x, y); return; }
  hovered = point;
  redraw();
  if (point < 0) { hideTip(); return; }
  const doc = await documentOf(point);
  if (hovered !== point || drag) return;
  const tip = $("tip"), info = about.columns[column], value = columns[column][point], parts = [element("b", "", cut(doc.id, 120))];
  if (doc.text) parts.push(element("span", "", cut(doc.text, 260)));
  const facts = (doc.fields ?? []).slice(0, 4).map(([name, value]) => `${name}: ${cut(shown(value), 60)}`);
  if (info.values && value !== NONE && !info.kept) facts.push(`${info.name}: ${info.values[value]}`);
  for (const fact of facts) parts.push(element("div", "small", fact));
  for (const each of parts) each.dir = "auto";
  tip.replaceChildren(...parts);
  tip.hidden = false;
  placeTip(x, y);
}
function placeTip(x, y) {
  const tip = $("tip"), w = tip.offsetWidth, h = tip.offsetHeight;
  tip.style.left = Math.max(8, x + 16 + w > wide - 8 ? x - w - 14 : x + 16) + "px";
  tip.style.top = Math.max(8, Math.min(y + 14, high - h - 8)) + "px";
}

// ---- keys and buttons -----------------------------------------------------------------------------------------------

function themed(next) {
  theme = next;
  document.documentElement.dataset.theme = next;
  if (program) coloured();
}
const toggleTheme = () => themed(theme === "dark" ? "light" : "dark");
const KEYS = [
  ["arrows", "move"], ["+ -", "zoom"], ["0", "show all"], ["Enter", "open the document nearest to the middle"], ["n p", "its next and previous neighbour"],
  ["/", "search"], ["w", "words of the documents in view"], ["b", "draw a box around documents"], ["c", "colours: list, next"], ["d", "light or dark"], ["Esc", "close, unmark"],
];
function card() {
  const nodes = [element("p", "", about.summary), element("p", "small", "This file holds everything and asks nothing from any network.")];
  const keys = element("dl");
  for (const [key, what] of KEYS) {
    const name = element("dt");
    key.split(" ").forEach((each, i) => name.append(i ? " " : "", element("kbd", "", each)));
    keys.append(name, element("dd", "", what));
  }
  const mouse = element("p", "small", "Drag moves, the wheel zooms, Shift and drag draws a box, a click opens a document. Fingers: drag, pinch, tap.");
  nodes.push(element("h3", "", "Keys"), keys, mouse, element("h3", "", "The model"), element("pre", "", about.card.join("\n")));
  $("cardtext").replaceChildren(...nodes);
  $("card").showModal();
}
let browsing = -1;
function neighbour(step) {
  if (selected < 0 || !neighbours.length) return;
  browsing = (browsing + step + neighbours.length) % neighbours.length;
  content.querySelectorAll(".hit")[browsing]?.focus();
}
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("card").open) return;
  const typing = event.target.matches("input, select");
  if (event.key === "Escape") {
    if (boxing) boxMode(false); else if (!$("panel").hidden || chosen.size) close();
    hideTip();
    stage.focus();
    return;
  }
  if (typing) return;
  const [cx, cy] = middle(), step = 80 / scale, inList = event.target.closest("button");
  const actions = {
    ArrowLeft: () => show(view.x - step, view.y, view.zoom), ArrowRight: () => show(view.x + step, view.y, view.zoom),
    ArrowUp: () => show(view.x, view.y - step, view.zoom), ArrowDown: () => show(view.x, view.y + step, view.zoom),
    "+": () => zoomTo(view.zoom * 1.5, cx, cy), "=": () => zoomTo(view.zoom * 1.5, cx, cy), "-": () => zoomTo(view.zoom / 1.5, cx, cy), "0": showAll,
    "/": () => $("query").focus(), w: wordsHere, b: () => boxMode(!boxing), d: toggleTheme, "?": card,
    c: () => { if ($("legend").hidden) legendShown(true); else { const by = $("by"); by.selectedIndex = (by.selectedIndex + 1) % by.length; by.onchange(); } },
    n: () => neighbour(1), p: () => neighbour(-1),
    Enter: () => { browsing = -1; const point = nearestTo(cx, cy, Math.hypot(wide, high)); if (point >= 0) choose(point); },
  };
  if (!actions[event.key] || (inList && event.key === "Enter")) return;
  event.preventDefault();
  actions[event.key]();
});
$("find").addEventListener("submit", (event) => { event.preventDefault(); clearTimeout(later); search($("query").value); });
let later = 0;
$("query").addEventListener("input", () => { clearTimeout(later); later = setTimeout(() => search($("query").value), 350); });
$("close").onclick = () => { close(); $("query").value = ""; stage.focus(); };
$("words").onclick = wordsHere;
$("select").onclick = () => boxMode(!boxing);
$("theme").onclick = toggleTheme;
$("about").onclick = card;
$("cardclose").onclick = () => $("card").close();
$("card").addEventListener("click", (event) => { if (event.target === $("card")) $("card").close(); });
$("colours").onclick = () => legendShown($("legend").hidden);
$("in").onclick = () => zoomTo(view.zoom * 1.6, ...middle());
$("out").onclick = () => zoomTo(view.zoom / 1.6, ...middle());
$("all").onclick = showAll;
about.columns.forEach((info) => $("by").append(new Option(info.name)));
$("by").onchange = () => { column = $("by").selectedIndex; chosen.clear(); filter(); coloured(); };
addEventListener("resize", resized);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", (event) => themed(event.matches ? "dark" : "light"));

// ---- begin ----------------------------------------------------------------------------------------------------------

document.title = about.title;
$("title").textContent = about.title;
$("title").dir = "auto";
$("facts").textContent = `${n.toLocaleString("en")} documents, ${about.columns[0].values.length} topics`;
themed(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
if (innerWidth <= 1000) legendShown(false);
view.x = about.extent[0] / 2; view.y = about.extent[1] / 2;
prepare();
measureLabels();
resized();
$("wait").style.display = "none";
$("wait").hidden = true;
stats.ready = performance.now();
window.joseMap = { about, stats, view, n, toScreen: (i) => toScreen(px(i), py(i)), position: (i) => [px(i), py(i)], nearestPoints: (i, k) => nearestPoints(decoded(i), k, i),
  documentOf, wordsOfPoints: (points) => wordsOfPoints(points).map(([w, score]) => [words[w], score]), labels: () => labels.filter((label) => label.on).map((label) => label.text),
  state, show, budget: () => budget };                            // for tests and the curious
})();

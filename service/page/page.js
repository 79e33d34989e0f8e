// The page for people: every answer comes from the calls of this service, and every text becomes a text node.
'use strict';

const $ = (id) => document.getElementById(id);
const PAGE = 10; // documents of an answer, and as many more for each press of a button
const MOST_K = 1000;
const RELATED = 12; // words near to a question
const DESCRIBING = 8; // words that stand for a document whose text is not kept
const SNIPPET = 320; // characters
const TELLING = 0.3; // share of the largest cosine from which on a word of a question is marked
const SCANNED = 200_000; // characters of a text that are looked through for the words of a question
const SHOWN = 300_000; // characters of a text that are shown at most
const HEALTH_MS = 30_000;
const UNSPACED = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u;
const WORD = /[\p{L}\p{M}\p{N}]+(?:['’\u200c\u200d-][\p{L}\p{M}\p{N}]+)*/gu;
const PRINTABLE = /^[\x21-\x7e]+$/;

let info = null; // the answer to /info
let turn = 0; // rises with every view: what an older one asked for is dropped
let retry = null; // what to do again when a key has been given

// ---- elements ------------------------------------------------------------------------------------------------------

/** An element: properties, then children; a string becomes text, never HTML. */
function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith('on')) made.addEventListener(name.slice(2), value);
    else if (name in made && name !== 'list') made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined && child !== ''));
  return made;
}

function button(label, onclick, className = '') {
  return make('button', { type: 'button', className, onclick }, label);
}

/** A text of a user: isolated, so that its direction does not reach its neighbours. */
const quoted = (text) => make('bdi', {}, text);
const number = (n) => n.toLocaleString('en');
const say = (text) => { $('said').textContent = text; };
const waiting = (text) => make('p', { className: 'waiting' }, text);

function link(view, parameters, ...children) {
  return make('a', { href: `#/${view}?${new URLSearchParams(parameters)}` }, ...children);
}

function notice(kind, title, ...children) {
  return make('div', { className: `notice ${kind}` }, title ? make('strong', {}, title) : null, ...children);
}

function chips(label, items) {
  return make('ul', { className: 'chips' }, label ? make('li', { className: 'muted' }, label) : null,
    ...items.map((item) => make('li', {}, item)));
}

const wordChips = (label, words) => chips(label, words.map((word) => link('words', { w: word }, quoted(word))));

function score(value, title = 'Cosine: 1 is the same direction') {
  const shown = make('span', { className: 'score', title });
  shown.append(make('progress', { max: 1, value: Math.max(0, Math.min(1, value)), ariaHidden: 'true' }), value.toFixed(3));
  return shown;
}

// ---- the service ---------------------------------------------------------------------------------------------------

const kept = {
  memory: '',
  get key() {
    try { return sessionStorage.getItem('jose-key') ?? ''; } catch { return this.memory; }
  },
  set key(key) {
    this.memory = key;
    try {
      if (key) sessionStorage.setItem('jose-key', key);
      else sessionStorage.removeItem('jose-key');
    } catch { /* the browser keeps nothing: the key is gone when the page is left */ }
  },
};

/** What went wrong, in words: a title, what is the case, what to do. */
class Trouble extends Error {
  constructor(kind, title, text, { status = 0, seconds = 0, problem = {} } = {}) {
    super(text);
    Object.assign(this, { kind, title, text, status, seconds, problem });
  }
}

function troubleOf(status, headers, problem) {
  const seconds = Number.parseInt(headers.get('retry-after') ?? '', 10) || 0;
  const again = `Try again in ${seconds > 1 ? `${seconds} seconds` : 'a second'}.`;
  const kind = (problem.type ?? '').split('#')[1] ?? '';
  const about = { status, seconds, problem };
  const words = [problem.detail, problem.advice].filter(Boolean).map((part) => (/[.?!]$/.test(part) ? part : `${part}.`)).join(' ');
  if (kind === 'missing-key') return new Trouble('key', 'This needs a key', 'Enter a key; whoever runs this service has one.', about);
  if (status === 401) return new Trouble('key', 'The key is not known', 'It may have been changed or mistyped. Enter it again.', about);
  if (kind === 'key-cannot-write') return new Trouble('key', 'This key may only read', 'Enter a key that may write, too.', about);
  if (status === 429) return new Trouble('busy', 'Too many requests', `The service lets in only so many. ${again}`, about);
  if (kind === 'not-ready') return new Trouble('busy', 'The service is not ready', `${words} ${again}`, about);
  if (kind === 'saturated') return new Trouble('busy', 'The service is busy', `Others are asking at the same time. ${again}`, about);
  if (problem.title) return new Trouble(kind, problem.title, words, about);
  if (status === 503) return new Trouble('busy', 'The service is busy', again, about);
  if (status >= 502) return new Trouble('gateway', 'The service is not reached',
    `A server on the way to it answered with status ${status}. Is the service running? Try again, or ask whoever runs it.`, about);
  return new Trouble('status', `The answer has status ${status}`, 'It is not from this service. Check the address of the page.', about);
}

/** Asks the service; the value of its JSON answer. Throws a Trouble. */
async function call(path, { method = 'GET', body, headers = {}, key = kept.key } = {}) {
  const sent = { Accept: 'application/json', ...headers };
  if (key) sent['X-API-Key'] = key;
  if (body !== undefined) sent['Content-Type'] = 'application/json';
  let answer;
  let text;
  try {
    answer = await fetch(path, { method, headers: sent, body: body === undefined ? undefined : JSON.stringify(body), cache: 'no-store' });
    text = await answer.text();
  } catch {
    throw new Trouble('offline', 'The service does not answer',
      'It may have been stopped, or this device has lost its connection. Check both, then try again.');
  }
  let value = null;
  try { value = text ? JSON.parse(text) : null; } catch { /* not from the service */ }
  if (!answer.ok) throw troubleOf(answer.status, answer.headers, value ?? {});
  if (value === null && answer.status !== 204) throw troubleOf(502, answer.headers, {});
  return value;
}

const post = (path, body) => call(path, { method: 'POST', body });

/** Shows a trouble with what to do about it. */
function showTrouble(place, trouble, again) {
  if (!(trouble instanceof Trouble)) throw trouble;
  const buttons = [];
  if (trouble.kind === 'key') buttons.push(button('Enter a key', () => askForKey(trouble.text, again), 'main'));
  else if (again && ['busy', 'offline', 'gateway', 'internal', 'storage-unavailable'].includes(trouble.kind)) buttons.push(button('Try again', again, 'main'));
  place.replaceChildren(notice('bad', trouble.title, make('p', {}, trouble.text),
    trouble.problem.suggestions?.length ? wordChips('Did you mean', trouble.problem.suggestions) : null,
    buttons.length ? make('div', { className: 'row' }, ...buttons) : null));
  say(`${trouble.title}. ${trouble.text}`);
}

/** Shows a trouble at the end of a card. */
function troubleIn(card, trouble, again) {
  const at = card.querySelector('.trouble') ?? card.appendChild(make('div', { className: 'trouble' }));
  showTrouble(at, trouble, () => { at.remove(); again(); });
}

// ---- the key -------------------------------------------------------------------------------------------------------

function askForKey(why, again) {
  retry = again ?? null;
  $('key-why').textContent = why;
  $('key-answer').replaceChildren();
  $('key-forget').hidden = !kept.key;
  $('key').value = '';
  if (!$('key-dialog').open) $('key-dialog').showModal();
  $('key').focus();
}

async function useKey(event) {
  event.preventDefault();
  const key = $('key').value.trim();
  if (!PRINTABLE.test(key)) {
    $('key-answer').replaceChildren(notice('bad', '', make('p', {}, key ? 'A key has no spaces and no letters beyond ASCII.' : 'Type or paste the key.')));
    return;
  }
  try {
    await call('documents?limit=1', { key });
  } catch (trouble) {
    showTrouble($('key-answer'), trouble, null);
    if (trouble.kind === 'key') $('key-answer').querySelector('.row')?.remove();
    $('key').select();
    return;
  }
  kept.key = key;
  $('key-dialog').close();
  showKey();
  (retry ?? show)();
}

function forgetKey() {
  kept.key = '';
  $('key-dialog').close();
  showKey();
  show();
}

function showKey() {
  const needed = info?.access?.read_key || info?.access?.write_key;
  $('key-button').hidden = !(needed || kept.key);
  $('key-button').textContent = kept.key ? 'Key ✓' : 'Key';
  $('key-button').title = kept.key ? 'A key is in use' : 'No key is in use';
}

// ---- the service about itself --------------------------------------------------------------------------------------

async function learn() {
  info = await call('info');
  $('name').textContent = info.name;
  document.title = `${info.name} · jose-embed`;
  const added = info.documents.stored ? ` · ${number(info.documents.stored)} added` : '';
  $('facts').textContent = `${number(info.words)} words · ${number(info.trained_documents)} documents${added}`;
  showKey();
}

async function checkHealth() {
  let kind = 'bad';
  let word = 'not reached';
  let title = '';
  let ready = null;
  try {
    ready = await call('readyz');
    kind = ready.warnings.length ? 'warn' : 'good';
    word = ready.warnings.length ? 'ready, with a note' : 'ready';
    title = ready.warnings.join(' ');
  } catch (trouble) {
    if (trouble.kind === 'busy') [kind, word] = ['warn', 'not ready'];
    title = trouble.text ?? '';
  }
  $('health').className = `health ${kind}`;
  $('health-word').textContent = word;
  $('health').title = title;
  return ready;
}

// ---- words of a question in a text ---------------------------------------------------------------------------------

const folded = (word) => word.normalize('NFC').toLowerCase().replaceAll('’', "'");

/** Where words of two sets stand in a text: [start, end, weight], in order, without overlaps. */
function places(text, asked, near) {
  const found = [];
  const weight = (word) => (asked.has(word) ? 3 : near.has(word) ? 1 : 0);
  for (const match of text.matchAll(WORD)) {
    const whole = folded(match[0]);
    let heavy = weight(whole);
    if (heavy) found.push([match.index, match.index + match[0].length, heavy, whole]);
    else if (match[0].includes('-')) { // to the model these may be words of their own
      for (const part of match[0].matchAll(/[^-]+/g)) {
        heavy = weight(folded(part[0]));
        if (heavy) found.push([match.index + part.index, match.index + part.index + part[0].length, heavy, folded(part[0])]);
      }
    }
  }
  const lower = text.toLowerCase();
  if (lower.length === text.length) {
    for (const word of [...asked, ...near].filter((one) => UNSPACED.test(one))) {
      for (let at = lower.indexOf(word); at >= 0; at = lower.indexOf(word, at + word.length)) found.push([at, at + word.length, weight(word), word]);
    }
  }
  found.sort((a, b) => a[0] - b[0] || b[1] - a[1]);
  let last = 0;
  return found.filter(([start, end]) => start >= last && (last = end));
}

/** The part of a text that holds most of the words: [start, end]. */
function bestPart(text, found, length) {
  if (text.length <= length * 1.25) return [0, text.length];
  let best = [0, -1];
  for (let i = 0; i < found.length; i += 1) {
    const seen = new Set();
    let sum = 0;
    for (let j = i; j < found.length && found[j][1] - found[i][0] <= length; j += 1) {
      sum += seen.has(found[j][3]) ? 0.1 * found[j][2] : found[j][2];
      seen.add(found[j][3]);
    }
    if (sum > best[1] + 1e-9) best = [found[i][0], sum];
  }
  let start = best[1] < 0 || best[0] < length / 2 ? 0 : best[0] - Math.round(length / 5);
  let end = Math.min(text.length, start + length);
  if (end === text.length) start = Math.max(0, end - length);
  if (start > 0) { // whole words, where there are spaces
    const space = text.slice(start, start + 40).search(/\s/);
    start += space >= 0 ? space + 1 : text.charCodeAt(start) >= 0xdc00 && text.charCodeAt(start) < 0xe000 ? 1 : 0;
  }
  if (end < text.length) {
    const space = text.slice(end - 40, end).search(/\s\S*$/);
    if (space >= 0) end = end - 40 + space;
    else if (text.charCodeAt(end) >= 0xdc00 && text.charCodeAt(end) < 0xe000) end -= 1;
  }
  return [start, end];
}

/** A part of a text with its words marked. */
function marked(text, found, start, end) {
  const pieces = [start > 0 ? '… ' : ''];
  let at = start;
  for (const [first, last, weight] of found) {
    if (first < at || last > end) continue;
    pieces.push(text.slice(at, first), make(weight > 1 ? 'mark' : 'span', { className: weight > 1 ? '' : 'near' }, text.slice(first, last)));
    at = last;
  }
  pieces.push(text.slice(at, end), end < text.length ? ' …' : '');
  return pieces;
}

// ---- search --------------------------------------------------------------------------------------------------------

const NOTHING_ASKED = { asked: new Set(), near: new Set() };

/** What the model knows of a question: its words, the unknown ones, and words near in meaning. */
async function understood(text) {
  // As a batch of one: a text without a known word is an answer here, and no failed request.
  const { results: [made] } = await post('embed-doc', { texts: [text], explain: true, encoding_format: 'base64' });
  if (made.problem) {
    const trouble = troubleOf(made.status, new Headers(), made.problem);
    if (!info.keeps_texts || trouble.kind !== 'no-known-words') throw trouble;
    const words = [...text.matchAll(WORD)].map((match) => match[0]); // exact words are found nevertheless
    return { asked: new Set(words.map(folded)), near: new Set(), related: [], unknown: words, nothingKnown: true };
  }
  const beside = await post('search', { text, target: 'words', k: RELATED });
  // Words such as "the" and "how" say nothing about a text: they are far from its direction.
  const nearest = Math.max(...made.explain.map((part) => part.score));
  const telling = made.explain.filter((part) => part.score >= TELLING * nearest).map((part) => part.word);
  const asked = new Set([...telling, ...made.unknown].map(folded));
  const related = beside.neighbors.map((neighbor) => neighbor.word);
  return { asked, near: new Set(related.map(folded)), related: related.filter((word) => !asked.has(folded(word))), unknown: made.unknown };
}

let startingWords = null;

/** Some words to begin with: of the frequent ones, those that weigh most in a text. */
async function learnWords() {
  if (startingWords !== null) return;
  const { words } = await call('words?limit=400');
  const text = words.slice(Math.floor(words.length / 4)).map(({ word }) => word).filter((word) => word.length > 3 || UNSPACED.test(word)).join(' ');
  if (!text) return;
  const { results: [made] } = await post('embed-doc', { texts: [text], explain: true, encoding_format: 'base64' });
  startingWords = (made.explain ?? []).slice(0, 10).map((part) => part.word);
}

async function showSearch(parameters, mine) {
  const query = parameters.get('q') ?? '';
  const like = parameters.get('like');
  const word = parameters.get('word');
  const source = ['trained', 'added'].includes(parameters.get('in')) ? parameters.get('in') : 'all';
  const k = Math.min(MOST_K, Math.max(PAGE, Number.parseInt(parameters.get('k') ?? '', 10) || PAGE));
  const filter = parameters.get('f') ?? '';
  const place = $('search-answer');
  $('query').value = query;
  $('source').value = source;
  $('source').parentElement.hidden = like !== null || !(info.documents.stored && info.trained_documents);
  $('filter').value = filter;
  $('filter').parentElement.hidden = !(filter || haveFields);
  if (like === null && word === null && !query.trim()) {
    await learnWords();
    if (mine !== turn) return;
    place.replaceChildren(make('div', { className: 'empty' },
      make('p', {}, info.keeps_texts ? 'Search goes by your words and by topic.' : 'Search goes by topic: a document that is found need not contain your words.'),
      startingWords?.length ? chips('Documents about', startingWords.map((one) => link('search', { word: one }, quoted(one)))) : null));
    return;
  }
  const first = k === PAGE || !place.querySelector('.cards');
  if (first) place.replaceChildren(waiting('Searching …'));
  place.ariaBusy = 'true';
  const question = like !== null ? { document_id: like, ...(source === 'all' ? {} : { document_source: source }) } : word !== null ? { word, source } : { text: query, source };
  const about = like === null && word === null ? await understood(query) : null;
  const [found, self] = await Promise.all([
    searched({ ...question, ...(filter.trim() ? { filter } : {}), k }),
    like === null ? null : likeness(like, source).catch(() => null),
  ]);
  if (mine !== turn) return;
  place.ariaBusy = 'false';
  const words = about ?? (word === null ? NOTHING_ASKED : { asked: new Set([folded(word)]), near: new Set() });
  const neighbors = found.neighbors;
  haveFields ||= neighbors.some((one) => Object.keys(one.fields ?? {}).length);
  $('filter').parentElement.hidden = !(filter || haveFields);
  const list = make('ol', { className: 'cards' }, ...neighbors.map((one) => documentCard(one, words, found.mode)));
  const more = neighbors.length === k && k < MOST_K
    ? make('p', { className: 'center' }, button('More', () => go('search', Object.fromEntries([...parameters, ['k', k + PAGE]]), true))) : null;
  place.replaceChildren(...[
    ...aboveAnswer(like, word, about, self),
    neighbors.length ? null : notice('', 'Nothing was found', make('p', {}, filter ? 'No document answers the question and has these fields.' : about?.nothingKnown ? 'No document holds one of these words, and the model knows none of them.' : source === 'added' ? 'No added document has a known word. Add some, or search all documents.' : 'The model has no documents to search.')),
    legend(neighbors, words, found.tooLarge),
    list, more].filter(Boolean));
  say(`${neighbors.length} documents found.`);
  await describe(list, neighbors, mine);
}

/** The found documents with their texts, or without if those are too large for one answer. */
async function searched(question) {
  try {
    return await post('search', { ...question, include: ['text', 'fields'] });
  } catch (trouble) {
    if (trouble.kind !== 'invalid-request' || !trouble.text.includes('too large')) throw trouble;
    return { ...(await post('search', question)), tooLarge: true };
  }
}

/** The words of the document whose likes are wanted. */
const likeness = (id, source) => post('search', { document_id: id, source, target: 'words', k: RELATED });

function aboveAnswer(like, word, about, self) {
  if (like !== null) {
    return [make('div', { className: 'card above' }, make('h2', {}, 'Documents like ', quoted(titles.get(like) ?? like)),
      self ? wordChips('Its words', self.neighbors.map((neighbor) => neighbor.word)) : null)];
  }
  if (word !== null) return [make('div', { className: 'card above' }, make('h2', {}, 'Documents about ', quoted(word)), chips('', [link('words', { w: word }, 'Its neighbours')]))];
  if (!about) return [];
  const above = [];
  if (about.unknown.length) {
    above.push(make('p', { className: 'muted' }, info.keeps_texts ? 'Not known to the model, and searched for as written: ' : 'Not known to the model, and so not searched for: ',
      ...about.unknown.slice(0, 8).flatMap((one, i) => [i ? ', ' : '', quoted(one)]), about.unknown.length > 8 ? ' …' : '.'));
  }
  if (about.related.length) above.push(wordChips('Near in meaning', about.related.slice(0, 8)));
  return above.length ? [make('div', { className: 'above' }, ...above)] : [];
}

function legend(neighbors, words, tooLarge) {
  if (!neighbors.length) return null;
  const line = [];
  if (tooLarge) line.push('The texts are too large to be shown together; their words are shown.');
  else if (neighbors.every((one) => one.text === null)) line.push('The model keeps no texts (jose-train --keep-text does); the words of each document are shown.');
  else if (words.asked.size) line.push(make('mark', {}, 'Marked'), ': a word of the question. ', words.near.size ? make('span', { className: 'near' }, 'Underlined') : '', words.near.size ? ': a word near in meaning.' : '');
  return line.length ? make('p', { className: 'legend' }, ...line) : null;
}

let haveFields = false; // whether a document that was found has some

/** The comparison of a filter that a field of this value fits; null if there is none. */
function comparison(name, value) {
  if (!['string', 'number', 'boolean'].includes(typeof value) || String(value).length > 200) return null;
  if (typeof value === 'number' && Math.abs(value) > Number.MAX_SAFE_INTEGER) return null; // the browser has rounded it
  return `${/^[a-z_][\w.-]*$/i.test(name) ? name : JSON.stringify(name)} = ${JSON.stringify(value)}`;
}

/** A value of a field, by which the documents are filtered when it is chosen. */
function filtering(name, value, text) {
  const condition = comparison(name, value);
  if (condition === null) return text;
  const parameters = questionAsked();
  parameters.delete('k');
  const before = parameters.get('f')?.trim();
  if (` and ${before} and `.includes(` and ${condition} and `)) return text;
  return link('search', Object.fromEntries([...parameters, ['f', before ? `${before} and ${condition}` : condition]]), text);
}

function fieldList(fields, title) {
  const shown = Object.entries(fields ?? {}).filter(([name, value]) => name !== title && value !== null && value !== '');
  if (!shown.length) return null;
  const text = (value) => (typeof value === 'string' ? value : JSON.stringify(value));
  const cut = (value) => (value.length > 200 ? `${value.slice(0, 200)}…` : value);
  return make('dl', { className: 'fields' }, ...shown.slice(0, 20).map(([name, value]) =>
    make('div', {}, make('dt', {}, quoted(name)), make('dd', { dir: 'auto' }, filtering(name, value, cut(text(value)))))));
}

const titles = new Map(); // of documents that were shown, by their ids
const TITLES = ['title', 'Title', 'name', 'headline', 'subject'];

const SCORES = { hybrid: '1 would be the best in words and in meaning', words: 'Share of the best answer' };

function documentCard(one, words, mode) {
  const title = TITLES.find((name) => typeof one.fields?.[name] === 'string' && one.fields[name].trim());
  const heading = title ? one.fields[title] : one.source === 'trained' && /^\d+$/.test(one.id) ? `Document ${one.id}` : one.id;
  if (title) titles.set(one.id, heading);
  const text = make('p', { className: 'text', dir: 'auto' });
  const actions = make('div', { className: 'actions' },
    make('button', { type: 'button', onclick: () => go('search', { like: one.id, in: one.source }) }, 'More like this'));
  const card = make('li', { className: 'card' },
    make('div', { className: 'title' }, make('h2', { dir: 'auto', title: heading.length > 100 ? heading : '' }, heading), title ? make('span', { className: 'tag' }, quoted(one.id)) : null,
      one.source === 'added' ? make('span', { className: 'tag added' }, 'added') : null, score(one.score, SCORES[mode])),
    typeof one.text === 'string' ? text : null, fieldList(one.fields, title), actions);
  if (typeof one.text === 'string') {
    const scanned = one.text.slice(0, SCANNED);
    const found = places(scanned, words.asked, words.near);
    const [start, end] = bestPart(one.text, found, SNIPPET);
    text.append(...marked(one.text, found, start, end));
    if (start > 0 || end < one.text.length) {
      const whole = button('Whole text', () => {
        const open = whole.ariaExpanded !== 'true';
        whole.ariaExpanded = String(open);
        whole.textContent = open ? 'Less' : 'Whole text';
        text.classList.toggle('whole', open);
        const last = Math.min(one.text.length, SHOWN);
        text.replaceChildren(...(open ? marked(one.text, found, 0, last) : marked(one.text, found, start, end)));
        if (open && last < one.text.length) text.append(make('em', {}, ` (the first ${number(SHOWN)} of ${number(one.text.length)} characters)`));
        if (open) text.tabIndex = 0; else text.removeAttribute('tabindex');
      });
      whole.ariaExpanded = 'false';
      actions.append(whole);
    }
  }
  if (one.source === 'added' && !info.documents.read_only) actions.append(remover(one.id));
  return card;
}

/** Fills in the words of those documents that have no text, one after the other. */
async function describe(list, neighbors, mine) {
  for (const [i, one] of neighbors.entries()) {
    if (typeof one.text === 'string') continue;
    const words = await post('search', { document_id: one.id, source: one.source, target: 'words', k: DESCRIBING }).catch(() => null);
    if (mine !== turn) return;
    if (words?.neighbors.length) list.children[i]?.querySelector('.title').after(wordChips('', words.neighbors.map((neighbor) => neighbor.word)));
  }
}

// ---- words ---------------------------------------------------------------------------------------------------------

/** "king - man + woman" as words to add and to subtract; a sign stands between blanks. */
function sumOf(text) {
  const parts = text.trim().split(/\s+([+-])\s+/);
  const sum = { positive: [parts[0]], negative: [] };
  for (let i = 1; i + 1 < parts.length; i += 2) sum[parts[i] === '+' ? 'positive' : 'negative'].push(parts[i + 1]);
  return sum;
}

/** A sum with one of its words, which an error names, replaced. */
function instead(text, detail, word) {
  const { positive, negative } = sumOf(text);
  const unknown = [...positive, ...negative].find((one) => detail.startsWith(`'${one}'`));
  return unknown === undefined ? word : text.split(/(\s+[+-]\s+)/).map((part) => (part === unknown ? word : part)).join('');
}

async function showWords(parameters, mine) {
  const text = (parameters.get('w') ?? '').trim();
  const k = Math.min(MOST_K, Math.max(20, Number.parseInt(parameters.get('k') ?? '', 10) || 20));
  const place = $('words-answer');
  $('word').value = text;
  if (!text) {
    await learnWords();
    if (mine !== turn) return;
    place.replaceChildren(make('div', { className: 'empty' }, make('p', {}, 'Which words stand in like places? Try one of the model’s:'),
      chips('', (startingWords ?? []).map((one) => link('words', { w: one }, quoted(one))))));
    return;
  }
  place.ariaBusy = 'true';
  const { positive, negative } = sumOf(text);
  const single = positive.length === 1 && !negative.length;
  // As a batch of one: an unknown word is an answer here, and no failed request.
  const { results } = await post('similar', { queries: [single ? { word: positive[0], k } : { positive, negative, k }] });
  if (mine !== turn) return;
  place.ariaBusy = 'false';
  const [result] = results;
  if (result.problem) {
    const { suggestions = [], title, detail, advice } = result.problem;
    const unknown = result.problem.type?.endsWith('unknown-word');
    place.replaceChildren(notice('warn', title, make('p', {}, detail, '. ', unknown ? '' : advice),
      suggestions.length ? chips('Did you mean', suggestions.map((word) => link('words', { w: instead(text, detail, word) }, quoted(word)))) : unknown ? make('p', {}, 'A word is spelt as in the text that the model was trained on, mostly in lower case.') : null));
    say(title);
    return;
  }
  const note = result.asked !== undefined && result.matched !== undefined && result.asked !== result.matched
    ? notice('', '', make('p', {}, 'The model knows ', quoted(result.asked), ' as ', quoted(result.matched), '.')) : null;
  const composed = result.composed ? notice('', '', make('p', {}, 'The word is not in the vocabulary; its vector is made of its parts.')) : null;
  const rows = result.neighbors.map((one) => make('tr', {}, make('td', {}, link('words', { w: one.word }, quoted(one.word))),
    make('td', { className: 'measure' }, score(one.score)), make('td', { className: 'number' }, number(one.count))));
  place.replaceChildren(...[note, composed, make('div', { className: 'card' },
    make('div', { className: 'title' }, make('h2', { dir: 'auto' }, text), single ? link('search', { word: positive[0] }, 'Documents about it') : null),
    make('table', { className: 'words' },
      make('thead', {}, make('tr', {}, make('th', { scope: 'col' }, 'Neighbour'), make('th', { scope: 'col', className: 'measure' }, 'Similarity'), make('th', { scope: 'col', className: 'number' }, 'Count'))),
      make('tbody', {}, ...rows))),
  rows.length === k && k < MOST_K ? make('p', { className: 'center' }, button('More', () => go('words', { w: text, k: k + 20 }, true))) : null].filter(Boolean));
  say(`${rows.length} neighbours.`);
}

let suggesting = 0;

/** Fills the list under the field with words of the same beginning. */
async function suggestWords() {
  const asked = ++suggesting;
  const typed = $('word').value;
  const [, before, prefix] = /^(.*\s[+-]\s+)?(.*)$/.exec(typed);
  if (!prefix || prefix.length > 100) return;
  const found = await call(`words?${new URLSearchParams({ prefix, limit: 8 })}`).catch(() => null);
  if (found && asked === suggesting) $('known-words').replaceChildren(...found.words.map(({ word }) => make('option', { value: (before ?? '') + word })));
}

// ---- added documents -----------------------------------------------------------------------------------------------

const pathOf = (id) => `documents/${encodeURIComponent(id)}`;

/** The button that removes a document, and asks before it does. */
function remover(id) {
  const place = make('span', { className: 'row' });
  const first = button('Remove', () => {
    const yes = button('Remove it', async () => {
      yes.disabled = true;
      try {
        await call(pathOf(id), { method: 'DELETE' });
      } catch (trouble) {
        if (trouble.kind !== 'unknown-document') {
          yes.disabled = false;
          troubleIn(place.closest('.card'), trouble, () => yes.click());
          return;
        }
      }
      const said = make('li', { className: 'notice good', tabIndex: -1 }, make('p', {}, 'Removed ', quoted(id), '.'));
      place.closest('.card').replaceWith(said);
      said.focus();
      say('Removed.');
      learn().catch(() => {});
    }, 'danger');
    place.replaceChildren(make('span', { className: 'ask-again' }, 'Really?'), yes, button('Keep it', () => { reset(); first.focus(); }));
    yes.focus();
  }, 'danger');
  const reset = () => place.replaceChildren(first);
  reset();
  return place;
}

async function showDocuments(parameters, mine) {
  const place = $('documents-answer');
  const readOnly = info.documents.read_only;
  $('add-form').hidden = readOnly;
  $('documents-notice').replaceChildren(...(readOnly ? [notice('', 'This service is read-only', make('p', {}, 'Documents are shown here and cannot be added or removed.'))] : []));
  place.replaceChildren(waiting('Loading …'));
  const list = make('ul', { className: 'cards' });
  await moreDocuments(place, list, '', mine);
}

async function moreDocuments(place, list, after, mine) {
  const found = await call(`documents?${new URLSearchParams({ after, limit: 20 })}`);
  if (mine !== turn) return;
  list.append(...found.documents.map(storedCard));
  const more = found.next === null ? null : make('p', { className: 'center' }, button('More', async (event) => {
    event.target.disabled = true;
    try { await moreDocuments(place, list, found.next, mine); } catch (trouble) { showTrouble(more, trouble, show); }
  }));
  place.replaceChildren(...[list.children.length ? list : make('p', { className: 'empty' }, 'No documents have been added yet.'), more].filter(Boolean));
}

function storedCard(one) {
  const text = make('p', { className: 'text whole', dir: 'auto', hidden: true, tabIndex: 0 });
  const whole = button('Show text', async () => {
    if (!text.hidden) {
      text.hidden = true;
    } else {
      try {
        const full = (await call(`${pathOf(one.id)}?source=added`)).text ?? '';
        text.textContent = full.length > SHOWN ? `${full.slice(0, SHOWN)}… (the first ${number(SHOWN)} of ${number(full.length)} characters)` : full;
        text.hidden = false;
      } catch (trouble) {
        troubleIn(card, trouble, () => whole.click());
      }
    }
    whole.textContent = text.hidden ? 'Show text' : 'Hide text';
    whole.ariaExpanded = String(!text.hidden);
  });
  whole.ariaExpanded = 'false';
  const card = make('li', { className: 'card' },
    make('div', { className: 'title' }, make('h2', { dir: 'auto', title: one.id.length > 100 ? one.id : '' }, one.id),
      make('span', { className: 'score' }, `${number(one.characters)} characters · ${new Date(one.updated).toLocaleDateString('en-CA')}`)),
    text, make('div', { className: 'actions' }, button('More like this', () => go('search', { like: one.id, in: 'added' })), whole,
      info.documents.read_only ? null : remover(one.id)));
  return card;
}

async function addDocument(replace = false) {
  const text = $('new-text').value;
  const place = $('add-answer');
  if (!text.trim()) {
    place.replaceChildren(notice('bad', '', make('p', {}, 'Type or paste a text first.')));
    $('new-text').focus();
    return;
  }
  const id = $('new-id').value.trim() || `note-${Date.now().toString(36)}`;
  const again = () => addDocument(replace);
  const submit = $('add-form').querySelector('button.main');
  submit.disabled = true;
  place.replaceChildren();
  try {
    const made = await call(pathOf(id), { method: 'PUT', body: { text }, headers: replace ? {} : { 'If-None-Match': '*' } });
    $('add-form').reset();
    place.replaceChildren();
    await learn().catch(() => {});
    await show();
    const known = made.known === made.tokens ? 'The model knows all of its words.' : `The model knows ${number(made.known)} of its ${number(made.tokens)} words.`;
    place.replaceChildren(notice('good', '', make('p', {}, 'Stored as ', quoted(id), `. ${known} `, link('search', { like: id, in: 'added' }, 'Find documents like it'))));
    say(`Stored as ${id}.`);
  } catch (trouble) {
    if (trouble.kind === 'precondition-failed') {
      place.replaceChildren(notice('warn', 'There is a document of this name', make('p', {}, 'Replace it, or choose another name.'),
        make('div', { className: 'row' }, button('Replace it', () => addDocument(true), 'danger'))));
      say('There is a document of this name.');
    } else {
      showTrouble(place, trouble, again);
    }
  } finally {
    submit.disabled = false;
  }
}

// ---- map and model -------------------------------------------------------------------------------------------------

/** Opens the map in a window or frame; the key goes along in a form, for a frame sends no headers. */
function openMap(target) {
  const form = make('form', { action: 'map', method: kept.key ? 'post' : 'get', target, hidden: true });
  if (kept.key) form.append(make('input', { type: 'hidden', name: 'key', value: kept.key }));
  document.body.append(form);
  form.submit();
  form.remove();
}

async function showMap(parameters, mine) {
  const place = $('map-answer');
  if (place.querySelector('iframe')) return;
  place.replaceChildren(waiting('Loading …'));
  await learn();
  if (info.map) await call('documents?limit=1'); // the frame could not say that it needs a key
  if (mine !== turn) return;
  if (!info.map) {
    const other = info.map_of_another_model;
    place.replaceChildren(make('div', { className: 'empty' }, make('h2', {}, other ? 'The map is of another model' : 'There is no map yet'),
      make('p', {}, other ? 'Make it again, then open this part again:' : 'Make one beside the model, then open this part again:'),
      make('p', {}, make('code', {}, `jose map ${info.name}.jose${other ? ' --overwrite' : ''}`))));
    return;
  }
  place.replaceChildren(
    make('div', { className: 'map-bar' }, make('span', { className: 'muted' }, 'Each point is a document; near ones are about the same.'), button('Open alone', () => openMap('_blank'))),
    make('iframe', { className: 'frame', name: 'map-frame', title: 'Map of the documents', sandbox: 'allow-scripts allow-downloads' }));
  openMap('map-frame');
}

async function showModel(parameters, mine) {
  const place = $('model-answer');
  if (!place.children.length) place.replaceChildren(waiting('Loading …'));
  const [ready] = await Promise.all([checkHealth(), learn()]);
  if (mine !== turn) return;
  const tile = (name, value, more = '') => make('div', {}, make('dt', {}, name), make('dd', {}, value, more ? make('small', {}, more) : null));
  const { index, documents, versions } = info;
  const checks = ready ? Object.entries(ready.checks).map(([part, seconds]) => `${part} ${(seconds * 1000).toFixed(1)} ms`).join(', ') : '';
  const recall = index.kind === 'exact' ? 'finds every neighbour' : `finds ${Math.round(index.recall_at_10 * 1000) / 10} % of the ten nearest`;
  const card = make('pre', { tabIndex: 0 }, 'Loading …');
  place.replaceChildren(
    make('dl', { className: 'tiles' }, tile('Words', number(info.words)), tile('Documents', number(info.trained_documents), 'trained'),
      tile('Added', number(documents.stored), documents.read_only ? 'read-only' : ''), tile('Dimension', String(info.dim)), tile('Index', index.kind, recall)),
    make('div', { className: 'card' }, make('h2', {}, 'Health'),
      ready ? make('p', {}, `Ready. Asked just now: ${checks}. Up for ${duration(info.uptime_seconds)}.`) : make('p', {}, 'Not ready: the service says so itself. Look at its log.'),
      ...(ready?.warnings ?? []).map((warning) => notice('warn', '', make('p', {}, warning))),
      make('p', { className: 'muted' }, `jose-embed ${versions['jose-embed'] ?? ''}. `, make('a', { href: 'docs' }, 'All calls'), ' · ', make('a', { href: 'problems' }, 'All errors'), ' · ', make('a', { href: 'metrics' }, 'Figures for Prometheus'))),
    make('div', { className: 'card' }, make('h2', {}, 'Card of the model'), card));
  try {
    card.textContent = (await call('card')).lines.slice(3).join('\n'); // without the title
  } catch (trouble) {
    if (mine === turn) troubleIn(card.parentElement, trouble, show);
    card.remove();
  }
}

function duration(seconds) {
  const units = [[86_400, 'day'], [3600, 'hour'], [60, 'minute'], [1, 'second']];
  const [size, name] = units.find(([least]) => seconds >= least) ?? units[3];
  const n = Math.floor(seconds / size);
  return `${n} ${name}${n === 1 ? '' : 's'}`;
}

// ---- which part is shown -------------------------------------------------------------------------------------------

const VIEWS = { search: showSearch, words: showWords, documents: showDocuments, map: showMap, model: showModel };

/** Goes to a view; the address says all of it, so that it can be kept and sent. */
/** The parameters of the search that is shown. */
const questionAsked = () => new URLSearchParams(location.hash.split('?')[1] ?? '');

function go(view, parameters = {}, replace = false) {
  const address = `#/${view}?${new URLSearchParams(parameters)}`;
  if (address === location.hash) show();
  else if (replace) { history.replaceState(null, '', address); show(); } else location.hash = address;
}

async function show() {
  const mine = ++turn;
  const [, name = 'search', parameters = ''] = /^#\/(\w+)\??(.*)$/s.exec(location.hash) ?? [];
  const view = Object.hasOwn(VIEWS, name) ? name : 'search';
  for (const section of document.querySelectorAll('main > section')) section.hidden = section.id !== view;
  for (const one of document.querySelectorAll('nav a')) {
    if (one.dataset.view === view) one.setAttribute('aria-current', 'page'); else one.removeAttribute('aria-current');
  }
  const place = $(`${view}-answer`);
  try {
    if (info === null) await learn();
    if (mine === turn) await VIEWS[view](new URLSearchParams(parameters), mine);
  } catch (trouble) {
    if (mine !== turn) return;
    place.ariaBusy = 'false';
    showTrouble(place, trouble, show);
  }
}

function start() {
  $('search-form').addEventListener('submit', (event) => {
    event.preventDefault();
    const text = $('query').value.trim();
    const filter = $('filter').value.trim();
    go('search', { ...(text ? { q: text } : {}), ...($('source').value === 'all' ? {} : { in: $('source').value }), ...(filter ? { f: filter } : {}) });
  });
  $('query').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && !event.shiftKey && !event.isComposing) { event.preventDefault(); $('search-form').requestSubmit(); }
  });
  const again = (name, value) => {
    const parameters = questionAsked();
    if (value) parameters.set(name, value); else parameters.delete(name);
    parameters.delete('k');
    if ($('query').value.trim()) parameters.set('q', $('query').value.trim());
    go('search', Object.fromEntries(parameters), true);
  };
  $('source').addEventListener('change', () => again('in', $('source').value === 'all' ? '' : $('source').value));
  $('filter').addEventListener('change', () => again('f', $('filter').value.trim()));
  $('word-form').addEventListener('submit', (event) => { event.preventDefault(); go('words', { w: $('word').value.trim() }); });
  $('word').addEventListener('input', suggestWords);
  $('add-form').addEventListener('submit', (event) => { event.preventDefault(); addDocument(); });
  $('key-form').addEventListener('submit', useKey);
  $('key-cancel').addEventListener('click', () => $('key-dialog').close());
  $('key-forget').addEventListener('click', forgetKey);
  $('key-button').addEventListener('click', () => askForKey(kept.key ? 'A key is in use. Another one takes its place.' : 'Enter the key of this service.', null));
  $('skip').addEventListener('click', (event) => { event.preventDefault(); $('main').focus(); });
  document.addEventListener('keydown', (event) => {
    if (event.key === '/' && !event.ctrlKey && !event.metaKey && !event.altKey && !/^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName)) {
      event.preventDefault();
      if ($('search').hidden && $('words').hidden) go('search');
      ($('words').hidden ? $('query') : $('word')).focus();
    }
  });
  window.addEventListener('hashchange', () => { show(); window.scrollTo(0, 0); });
  window.addEventListener('online', () => checkHealth());
  window.setInterval(() => { if (!document.hidden) checkHealth(); }, HEALTH_MS);
  checkHealth();
  show();
}

start();

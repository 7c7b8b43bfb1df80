// The grid of photographs and its keyboard navigation.

const items = [];  // the items shown, in order: { image, ticket, thumbnail, distance }
const cards = new Map();  // by ticket
const cardOf = item => cards.get(item.ticket);
const calm = matchMedia("(prefers-reduced-motion: reduce)");

function withBreaks(name) {
  const parts = [], end = name.lastIndexOf("/") + 1;
  for (const [text, kind] of [[name.slice(0, end), "folder"], [name.slice(end), "file"]]) {
    if (!text) continue;
    const part = document.createElement("span");
    part.className = kind;
    for (const piece of text.split(/(?<=[/_])/)) part.append(piece, /[/_]$/.test(piece) ? document.createElement("wbr") : "");
    parts.push(part);
  }
  return parts;
}

const inWords = distance => Number.isInteger(distance) ? String(distance) : distance.toFixed(1);

function makeCard(item) {
  const card = by("card").content.firstElementChild.cloneNode(true), [picture, gone] = ["img", ".gone"].map(part => card.querySelector(part));
  picture.onerror = () => { picture.hidden = true; gone.hidden = false; };
  picture.src = item.thumbnail;
  card.querySelector(".name").append(...withBreaks(item.image));
  card.querySelector("button").title = item.image;
  card.querySelector("button").onclick = () => openViewer(items.findIndex(one => one.ticket === item.ticket));
  return card;
}

// Replaces the photographs shown; those already there keep their elements, so that nothing flickers.
// Marks photographs whose tickets are not in `since`, those shown before a change.
function draw(found, { append = false, since = null } = {}) {
  const list = by("results"), focused = list.contains(document.activeElement);
  const places = since && !calm.matches ? positions() : null;
  if (!append) items.length = 0;
  items.push(...found);
  const kept = new Set(items.map(item => item.ticket));
  for (const ticket of [...cards.keys()]) if (!kept.has(ticket)) cards.delete(ticket);
  for (const item of items) {
    if (!cards.has(item.ticket)) cards.set(item.ticket, makeCard(item));
    const button = cardOf(item).querySelector("button"), far = button.querySelector(".far");
    far.textContent = item.distance === null ? "" : inWords(item.distance);
    far.title = item.distance === null ? "" : distanceInWords(item.distance);
    const fresh = Boolean(since) && !since.has(item.ticket);
    button.classList.toggle("new", fresh);
    const [distance, news] = [item.distance === null ? "" : `, ${distanceInWords(item.distance)}`, fresh ? ", new" : ""];
    button.setAttribute("aria-label", item.image + distance + news);
  }
  const active = document.activeElement, elements = items.map(cardOf);
  if (append) list.append(...elements.filter(card => card.parentNode !== list)); else list.replaceChildren(...elements);
  reach(list.contains(active) ? elements.findIndex(card => card.contains(active)) : 0, focused);
  if (places) glide(places);
}

const buttons = () => [...by("results").querySelectorAll(".card")];

// Tab reaches one card; the arrow keys move between cards.
function reach(place, focus) {
  buttons().forEach((button, at) => { button.tabIndex = at === place ? 0 : -1; });
  if (focus && items.length) buttons()[place].focus();
}

function positions() {
  return new Map([...cards].map(([ticket, card]) => [ticket, card.getBoundingClientRect()]));
}

function glide(places) {
  for (const [ticket, card] of cards) {
    const from = places.get(ticket), to = card.getBoundingClientRect();
    if (!from || (from.top > innerHeight && to.top > innerHeight) || (from.bottom < 0 && to.bottom < 0)) continue;
    if (from.left === to.left && from.top === to.top) continue;
    const shift = `translate(${from.left - to.left}px, ${from.top - to.top}px)`;
    card.animate([{ transform: shift }, { transform: "none" }], { duration: 180, easing: "ease-out" });
  }
}

by("results").addEventListener("keydown", event => {
  const all = buttons(), place = all.indexOf(document.activeElement);
  if (place < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
  const columns = all.filter(button => button.offsetTop === all[0].offsetTop).length;
  const targets = { ArrowLeft: place - 1, ArrowRight: place + 1, ArrowUp: place - columns, ArrowDown: place + columns, Home: 0, End: all.length - 1 };
  if (event.key === "m") searchLike(items[place], event.shiftKey);
  else if (event.key === "M") searchLike(items[place], true);
  else if (!(event.key in targets)) return;
  else if (event.key === "ArrowUp" && targets.ArrowUp < 0) by("text").focus();
  else if (targets[event.key] in all) reach(targets[event.key], true);
  else if (event.key === "ArrowDown" && !by("more").hidden) by("more").focus();
  event.preventDefault();
});

// Searching: from the query to the results.

const PAGE = 48, MOST = 200, SHORTLIST = 1000;
let searching = new AbortController();
let settled = false, since = null;  // whether the query was answered, and the tickets shown before its length changed

const several = (number, one) => `${number.toLocaleString("en")} ${one}${number === 1 ? "" : "s"}`;
const isMixture = () => Boolean(query.not) || query.images.length + Boolean(query.text) > 1;

function distanceInWords(distance) {
  return isMixture() ? `distance ${inWords(distance)}` : `${distance} ${distance === 1 ? "bit differs" : "bits differ"}`;
}

// The status line, the part that phones have no room for, and a highlighted part.
function say(text, more = "", mark = "") {
  by("status").textContent = text;
  for (const [kind, part] of [["wide", more], ["changed", mark]]) {
    if (!part) continue;
    const element = document.createElement("span");
    element.className = kind;
    element.textContent = part;
    by("status").append(" ", element);
  }
}

function notice(text = "", { error = false, again = false } = {}) {
  by("notice").hidden = !text;
  by("notice").classList.toggle("error", error);
  by("message").textContent = text;
  by("again").hidden = again !== true;
}

async function answer(kind, signal) {
  const offset = kind === "more" ? items.length : 0;
  const k = kind === "length" ? Math.min(Math.max(items.length, PAGE), MOST) : PAGE;
  const wanted = query.images.map(codeOfImage);
  if (query.text) wanted.push(codeOfText(query.text));
  const unwanted = query.not ? [codeOfText(query.not)] : [];
  if (!wanted.length && !query.class) {
    if (query.not) throw new Refusal("Also say what the photographs should show: “but not” only excludes");
    return ask("browse", [["k", k], ["offset", offset], ...conditions()], { signal });
  }
  const [like, unlike] = await Promise.all([Promise.all(wanted), Promise.all(unwanted)]);
  signal.throwIfAborted();
  showQuery();  // with the names and pictures that came with the codes
  keep("replace");
  const parameters = [["bits", query.bits], ["k", k], ["offset", offset], ...like.map(code => ["code", code]), ...unlike.map(code => ["not", code])];
  if (refines()) parameters.push(["shortlist", SHORTLIST]);
  if (query.class) parameters.push(["class", query.class]);
  parameters.push(...conditions());
  return ask("search", parameters, { signal });
}

const conditions = () => query.where.split(/\s+and\s+/).filter(Boolean).map(condition => ["where", condition]);
const refines = () => query.fine && query.bits < known.bits;

// kind: "query" for a new query, "length" for the same one at another length, "more" for further results.
async function search(kind = "query") {
  searching.abort();
  searching = new AbortController();
  const before = kind === "length" && settled ? since : null;
  if (kind === "query") settled = false;
  const { signal } = searching;
  showQuery();
  notice();
  by("results").setAttribute("aria-busy", true);
  const waiting = setTimeout(() => { by("results").classList.add("waiting"); say("Searching …"); }, 250);
  try {
    const found = await answer(kind, signal);
    if (signal.aborted) return;
    draw(found.results, { append: kind === "more", since: before });
    settled = true;
    by("more").hidden = !found.more;
    notice(items.length ? "" : nothing());
    say(...summary(found.ms, changes(before)));
  } catch (error) {
    if (signal.aborted) return;
    const message = error instanceof Refusal ? error.message : "Something went wrong in this page.";
    if (kind === "more") say(message);  // what is already shown is still valid
    else {
      draw([]);
      by("more").hidden = true;
      say("");
      notice(message, { error: true, again: error.mayPass });
    }
    if (!(error instanceof Refusal)) throw error;
  } finally {
    clearTimeout(waiting);
    if (!signal.aborted) {
      by("results").classList.remove("waiting");
      by("results").setAttribute("aria-busy", false);
    }
  }
}

function changes(before) {
  if (!before) return "";
  const now = new Set(items.map(item => item.ticket));
  const [fresh, gone] = [[...now].filter(ticket => !before.has(ticket)), [...before].filter(ticket => !now.has(ticket))];
  return fresh.length || gone.length ? `${fresh.length} new, ${gone.length} gone` : "";
}

function nothing() {
  if (!known.images) return "There are no photographs in this index yet.\nAdd a folder with nestkala index FOLDER.";
  if (query.where) return "No photographs match the filter.";
  if (query.class) return "No photographs of this class found.";
  return "Describe what you are looking for, or drop a photograph here.";
}

function summary(ms, changed) {
  if (!items.length) return [""];
  const whole = several(known.images, "photograph"), count = items.length.toLocaleString("en");
  const isFiltered = query.where ? ", filtered" : "";
  if (ms === undefined) return isFiltered ? [`${several(items.length, "photograph")}${isFiltered}`] : [items.length < known.images ? `A selection of ${whole}` : whole];
  const bits = query.bits < known.bits ? `${query.bits} of ${known.bits} bits` : several(known.bits, "bit");
  const found = query.class ? `${count} nearest in ${query.class.replaceAll("_", " ")}` : `${count} nearest of ${known.images.toLocaleString("en")}`;
  return [found + isFiltered, `· ${bits}${refines() ? ", then all" : ""} · ${ms < 10 ? ms.toFixed(1) : ms.toFixed(0)} ms`, changed];
}

function showQuery() {
  by("text").placeholder = query.images.length ? "and what it should show" : "Search your photographs";
  if (document.activeElement !== by("text")) by("text").value = query.text;
  if (document.activeElement !== by("where")) by("where").value = query.where;
  if (document.activeElement !== by("not")) by("not").value = query.not;
  by("images").hidden = !query.images.length;
  by("images").replaceChildren(...query.images.map(image => {
    const chip = by("chip").content.firstElementChild.cloneNode(true), picture = chip.querySelector("img"), remove = chip.querySelector("button");
    const name = image.name.slice(image.name.lastIndexOf("/") + 1);
    picture.onerror = () => { picture.hidden = true; };
    if (image.picture) picture.src = image.picture; else picture.hidden = true;
    chip.querySelector(".name").textContent = name;
    chip.title = image.name;
    remove.setAttribute("aria-label", `Remove ${name} from the search`);
    remove.onclick = () => { query.images = query.images.filter(one => one !== image); by("text").focus(); renewed(); };
    return chip;
  }));
  by("bits").value = known.lengths.indexOf(query.bits);
  by("shown").textContent = several(query.bits, "bit");
  by("bits").setAttribute("aria-valuetext", by("shown").textContent);
  by("fine").checked = query.fine;
  by("fine").disabled = query.bits === known.bits;
  for (const chip of by("classes").querySelectorAll("[aria-pressed]")) chip.setAttribute("aria-pressed", chip.value === query.class);
  document.title = [query.text, query.class].filter(Boolean).join(", ") || `Search ${known.images.toLocaleString("en")} images`;
}

function keep(how) {
  const url = address();
  if (how === "push" && !history.state?.viewer) history.pushState(null, "", url);
  else history.replaceState(viewer.open ? history.state : null, "", url);
}

// A new query, which gets its own history entry.
function renewed() {
  keep("push");
  scrollTo({ top: 0 });
  return search();
}

function searchLike(item, add = false) {
  const image = { name: item.image, ticket: item.ticket, picture: item.thumbnail };
  const others = add ? query.images.filter(one => one.ticket !== image.ticket) : [];
  Object.assign(query, { images: [...others, image].slice(-MOST_IMAGES) }, add ? {} : { text: "", not: "" });
  closed();
  by("text").value = query.text;
  renewed();
}

function searchFile(file) {
  if (!file) return;
  closed();
  query.images = [{ name: file.name || "a pasted image", file, picture: URL.createObjectURL(file) }];
  renewed();
}

by("form").onsubmit = event => {
  event.preventDefault();
  Object.assign(query, { text: by("text").value.trim(), not: by("not").value.trim(), where: by("where").value.trim() });
  if (matchMedia("(pointer: coarse)").matches) document.activeElement.blur();  // hides the on-screen keyboard
  renewed();
};
by("pick").onclick = () => by("file").click();
by("file").onchange = () => { searchFile(by("file").files[0]); by("file").value = ""; };

// The same query at another length.
function changed() {
  since ??= new Set(items.map(item => item.ticket));
  keep("replace");
  search("length");
}

by("bits").oninput = () => { query.bits = known.lengths[by("bits").value]; changed(); };
by("bits").onchange = () => { since = null; };  // released: the next change is a new one
by("fine").onchange = () => { since = null; query.fine = by("fine").checked; changed(); };
by("more").onclick = async () => {
  const place = items.length;
  await search("more");
  if (items.length > place) reach(place, true);
};
by("again").onclick = () => search();
by("text").onkeydown = event => {
  if (event.key !== "ArrowDown" || !items.length) return;
  event.preventDefault();
  reach(0, true);
};

document.addEventListener("keydown", event => {
  const types = event.target.matches?.("input[type=search]");
  if (event.key !== "/" || types || viewer.open || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  by("text").focus();
  by("text").select();
});
document.addEventListener("paste", event => {
  if (event.clipboardData.files.length) { event.preventDefault(); searchFile(event.clipboardData.files[0]); }
});
for (const kind of ["dragenter", "dragover", "dragleave", "drop"])
  document.addEventListener(kind, event => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    by("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover" || (kind === "dragleave" && event.relatedTarget !== null));
    if (kind === "drop") searchFile(event.dataTransfer.files[0]);
  });

window.addEventListener("popstate", () => {
  if (history.state?.viewer) return history.back();  // navigated forward to a closed photograph
  const wasOpen = viewer.open;
  closed();
  if (wasOpen && address() === (location.search || location.pathname)) return;
  readAddress();
  by("text").value = query.text;
  by("not").value = query.not;
  by("where").value = query.where;
  search();
});

async function showClasses() {
  const { classes } = await ask("classes");
  if (!classes.length) return;
  const chips = classes.map(({ name, images }) => {
    const chip = document.createElement("button"), count = document.createElement("small");
    Object.assign(chip, { type: "button", value: name, textContent: name.replaceAll("_", " ") });
    count.textContent = images.toLocaleString("en");
    count.setAttribute("aria-label", several(images, "photograph"));
    chip.append(count);
    chip.setAttribute("aria-pressed", name === query.class);
    chip.onclick = () => { query.class = query.class === name ? "" : name; renewed(); };
    return chip;
  });
  by("classes").replaceChildren(...chips);
  by("classes").hidden = false;
  chips.find(chip => chip.value === query.class)?.scrollIntoView({ block: "nearest", inline: "center" });
  fitClasses();
}

// If the classes do not fit in their row, its end fades and a button shows all.
function fitClasses() {
  const row = by("classes"), whole = row.classList.contains("whole");
  const isCut = !whole && row.scrollWidth > row.clientWidth + 1;
  row.classList.toggle("cut", isCut && row.scrollLeft + row.clientWidth < row.scrollWidth - 1);
  by("every").hidden = !whole && !isCut;
  by("every").textContent = whole ? "fewer" : "all classes";
  by("every").setAttribute("aria-expanded", whole);
}
by("classes").onscroll = fitClasses;
by("every").onclick = () => { by("classes").classList.toggle("whole"); fitClasses(); };
window.addEventListener("resize", fitClasses);

readAddress();
by("bits").max = known.lengths.length - 1;  // first, or the value is clipped to the old maximum
history.replaceState(null, "");
if (known.classes) showClasses().catch(() => {});  // the search itself reports if the server is gone
search();

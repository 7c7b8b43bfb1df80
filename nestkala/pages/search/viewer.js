// One photograph, enlarged.

const viewer = by("viewer");
let viewed = 0, viewing = null;  // position in the results, and the photograph shown there

function openViewer(place) {
  if (!viewer.open) {
    viewer.showModal();
    history.pushState({ viewer: true }, "");  // so that "back", the only way on a phone, closes it
  }
  view(place);
}

function closeViewer() {
  if (history.state?.viewer) history.back(); else closed();
}

function closed() {
  if (!viewer.open) return;
  viewer.close();
  viewing = null;
  by("large").removeAttribute("src");
  if (items.length) reach(Math.min(viewed, items.length - 1), true);
}

function view(place) {
  const item = items[place], large = by("large"), full = new Image();
  viewed = place;
  viewing = item;
  large.hidden = false;
  large.alt = item.image;
  large.style.removeProperty("--width");
  large.style.removeProperty("--height");
  large.src = item.thumbnail;  // immediately, until the larger one has loaded
  full.src = `photograph/${item.ticket}`;
  full.decode().then(() => { if (viewing === item) large.src = full.src; }, () => viewing === item && broken(item));
  by("broken").hidden = true;
  by("viewed").replaceChildren(...withBreaks(item.image));
  by("original").href = `original/${item.ticket}`;
  by("original").hidden = !known.originals;
  by("place").textContent = `${place + 1} of ${items.length}${by("more").hidden ? "" : "+"}`;
  by("previous").disabled = place === 0;
  by("next").disabled = place === items.length - 1 && by("more").hidden;
  facts(item);
  if (items[place + 1]) new Image().src = `photograph/${items[place + 1].ticket}`;
}

async function facts(item) {
  const distance = item.distance === null ? [] : [distanceInWords(item.distance)];
  by("facts").textContent = distance.join("");
  try {
    const { date, taken, width, height, bytes } = await ask(`about/${item.ticket}`);
    if (viewing !== item) return;
    const size = bytes && (bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);
    const parts = [date && (taken ? "" : "saved ") + dateInWords(date), width && `${width} × ${height}`, size, ...distance];
    by("facts").textContent = parts.filter(Boolean).join(" · ");
    if (width) {  // small ones are not enlarged
      by("large").style.setProperty("--width", width);
      by("large").style.setProperty("--height", height);
    }
  } catch (error) {
    if (viewing === item && error.mayPass) broken(item, error.message);
  }
}

function broken(item, why = "This photograph no longer exists or cannot be read.") {
  by("large").hidden = true;
  by("broken").hidden = false;
  by("broken").textContent = why;
}

function dateInWords(date) {
  const [, day, time] = /^(\d{4}(?:-\d\d){0,2})(?:[T ](\d\d:\d\d))?/.exec(date) ?? [];
  if (!day || day.length < 10) return date;
  const shown = new Date(`${day}T${time ?? "12:00"}`);
  return isNaN(shown) ? date : shown.toLocaleString([], { dateStyle: "long", timeStyle: time ? "short" : undefined });
}

let fetching = false;

async function turn(step) {
  const place = viewed + step;
  if (fetching) return;
  if (place >= items.length && !by("more").hidden) {
    fetching = true;
    await search("more").finally(() => { fetching = false; });
  }
  if (viewer.open && place in items) view(place);
}

viewer.addEventListener("cancel", event => { event.preventDefault(); closeViewer(); });
viewer.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "ArrowLeft") turn(-1);
  else if (event.key === "ArrowRight") turn(1);
  else if (event.key === "Home") view(0);
  else if (event.key === "End") view(items.length - 1);
  else if (event.key === "m" || event.key === "M") searchLike(viewing, event.shiftKey);
  else return;
  event.preventDefault();
});
by("previous").onclick = () => turn(-1);
by("next").onclick = () => turn(1);
by("close").onclick = closeViewer;
by("like").onclick = () => searchLike(viewing);
by("add").onclick = () => searchLike(viewing, true);
by("large").onerror = () => { if (viewing && by("large").src.includes("/photograph/")) broken(viewing); };

let touched = null;
by("stage").addEventListener("pointerdown", event => { touched = event.pointerType === "touch" && event.isPrimary ? event : null; });
by("stage").addEventListener("pointerup", event => {
  if (!touched || !event.isPrimary) return;
  const [across, along] = [event.clientX - touched.clientX, event.clientY - touched.clientY];
  if (Math.abs(across) > 48 && Math.abs(across) > 2 * Math.abs(along)) turn(across < 0 ? 1 : -1);
});

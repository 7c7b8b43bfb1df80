// The query, stored in the page's address, so that it can be bookmarked, shared and returned to.

const MOST_IMAGES = 4;
const query = { text: "", not: "", images: [], class: "", where: "", bits: known.bits, fine: false };
const uploaded = new Map();  // by code: the parts of an uploaded image that do not fit in an address
const sentences = new Map();

function codeOfText(text) {
  if (!sentences.has(text)) {
    const code = ask("encode", { text }).then(answer => answer.code);
    code.catch(() => sentences.delete(text));
    sentences.set(text, code);
  }
  return sentences.get(text);
}

function codeOfImage(image) {
  if (image.code) return image.code;
  image.encoding ??= encodeImage(image).finally(() => { image.encoding = undefined; });
  return image.encoding;
}

async function encodeImage(image) {
  if (!image.file) {
    const { code, image: name, ticket, thumbnail } = await ask("encode", { image: image.ticket ?? image.name });
    Object.assign(image, { code, name, ticket, picture: thumbnail });
  } else {
    if (image.file.size > known.upload) throw new Refusal(`the image is larger than ${known.upload / 1e6} MB`);
    image.code = (await ask("encode", {}, { method: "POST", body: image.file })).code;
    uploaded.set(image.code, image);
    if (uploaded.size > 20) uploaded.delete(uploaded.keys().next().value);
  }
  return image.code;
}

function address() {
  const asked = new URLSearchParams();
  if (query.text) asked.set("q", query.text);
  if (query.not) asked.set("not", query.not);
  for (const image of query.images) {
    if (!image.file && (image.ticket || !image.code)) asked.append("like", image.name);
    else if (image.code) asked.append("code", image.code);
  }
  if (query.class) asked.set("class", query.class);
  if (query.where) asked.set("where", query.where);
  if (query.bits !== known.bits) asked.set("bits", query.bits);
  if (query.fine) asked.set("refine", 1);
  return asked.size ? `?${asked}` : location.pathname;
}

function readAddress() {
  const asked = new URLSearchParams(location.search), bits = Number(asked.get("bits"));
  Object.assign(query, {
    text: asked.get("q") ?? "",
    not: asked.get("not") ?? "",
    images: [
      ...asked.getAll("like").map(name => ({ name })),
      ...asked.getAll("code").map(code => uploaded.get(code) ?? { name: "an image", code }),
    ].slice(-MOST_IMAGES),
    class: asked.get("class") ?? "",
    where: asked.get("where") ?? "",
    bits: known.lengths.includes(bits) ? bits : known.bits,
    fine: asked.has("refine"),
  });
}

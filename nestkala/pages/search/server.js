// Requests to the server and its responses.

const known = JSON.parse(document.body.dataset.known);
const by = id => document.getElementById(id);

class Refusal extends Error {
  constructor(text, mayPass = false) {
    super(text[0].toUpperCase() + text.slice(1) + (/[.?!)]$/.test(text) ? "" : "."));
    this.mayPass = mayPass;
  }
}

async function ask(path, parameters = {}, options = {}) {
  const asked = String(new URLSearchParams(parameters));
  try {
    const response = await fetch(asked ? `${path}?${asked}` : path, options);
    const content = await response.json();
    if (!response.ok) throw new Refusal(content.error, response.status >= 500);
    return content;
  } catch (error) {
    if (error instanceof Refusal || error.name === "AbortError") throw error;
    throw new Refusal("The server is not responding. Is nestkala serve still running?", true);
  }
}

"use strict";

// A button that takes a line along.
for (const button of document.querySelectorAll("button.copy")) {
  const code = button.previousElementSibling;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(code.textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// Uploads: resumable ones of the API, in slices, each with its digest.
const MIB = 2 ** 20;
const SLICE_SECONDS = 2;
const LARGEST_SLICE = 32 * MIB;
const LONGEST_PAUSE = 30;

class Refused extends Error {}
class Lost extends Error {}

// Wait; the line's return and an abort end it early.
const sleep = (seconds, signal) => new Promise((done) => {
  const timer = setTimeout(done, seconds * 1000);
  const wake = () => { clearTimeout(timer); done(); };
  addEventListener("online", wake, { once: true });
  signal.addEventListener("abort", wake, { once: true });
});

const sha256 = async (bytes) => {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return btoa(String.fromCharCode(...digest));
};

function readable(count) {
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (count >= 1024 && unit < units.length - 1) { count /= 1024; unit += 1; }
  return `${unit ? count.toPrecision(3) : Math.round(count)} ${units[unit]}`;
}

// What tells a file from others without reading it all.
async function fingerprint(file) {
  const starts = [0, Math.max(0, Math.floor(file.size / 2)), Math.max(0, file.size - MIB)];
  const parts = [`${file.size} ${file.lastModified} `, ...starts.map((s) => file.slice(s, s + MIB))];
  return sha256(await new Blob(parts).arrayBuffer());
}

// Ask the server; a broken line and a server that is not ready now are Lost.
async function ask(url, options) {
  let answer;
  try {
    answer = await fetch(url, { redirect: "error", cache: "no-store", ...options });
  } catch (error) {
    if (options.signal && options.signal.aborted) throw error;
    throw new Lost("The line is lost.");
  }
  if ([429, 502, 503, 504].includes(answer.status)) throw new Lost(await said(answer));
  return answer;
}

async function said(answer) {
  const text = answer.headers.get("Content-Type")?.startsWith("text/plain") && await answer.text();
  return (text || `The server answered ${answer.status}.`).trim();
}

class Upload {
  constructor(file, place, show) {
    Object.assign(this, { file, place, show, step: MIB, url: null, offset: 0, stop: null });
    this.memory = `upload ${place}`;
  }

  // Find the upload that this file was begun with, or begin one.
  async find() {
    const mark = await fingerprint(this.file);
    const known = JSON.parse(localStorage.getItem(this.memory) || "null");
    if (known && known.mark === mark) {
      this.url = known.url;
      if (await this.look()) return;
    }
    const answer = await ask(this.place, {
      method: "POST",
      headers: { "Upload-Complete": "?0", "Upload-Length": String(this.file.size) },
    });
    if (answer.status !== 201) throw new Refused(await said(answer));
    this.url = answer.headers.get("Location");
    this.offset = 0;
    localStorage.setItem(this.memory, JSON.stringify({ mark, url: this.url }));
  }

  // Ask how far it is; false if there is no such upload any more.
  async look() {
    const answer = await ask(this.url, { method: "HEAD", signal: this.stop.signal });
    if (answer.status === 404) return false;
    if (!answer.ok) throw new Refused(`The server answered ${answer.status}.`);
    this.offset = Number(answer.headers.get("Upload-Offset"));
    return true;
  }

  // Send one slice; true after the last.
  async send() {
    const bytes = await this.file.slice(this.offset, this.offset + this.step).arrayBuffer();
    const last = this.offset + bytes.byteLength === this.file.size;
    const begun = performance.now();
    const answer = await ask(this.url, {
      method: "PATCH", body: bytes, signal: this.stop.signal,
      headers: {
        "Content-Type": "application/partial-upload", "Upload-Offset": String(this.offset),
        "Upload-Complete": last ? "?1" : "?0", "Content-Digest": `sha-256=:${await sha256(bytes)}:`,
      },
    });
    if (answer.status === 409 && answer.headers.has("Upload-Offset")) {
      this.offset = Number(answer.headers.get("Upload-Offset"));
      return false;
    }
    if (!answer.ok) throw new Refused(await said(answer));
    this.offset += bytes.byteLength;
    const seconds = (performance.now() - begun) / 1000;
    const wanted = this.step * Math.min(2, SLICE_SECONDS / Math.max(seconds, 0.01));
    this.step = Math.round(Math.min(LARGEST_SLICE, Math.max(MIB / 4, wanted)));
    return last;
  }

  // Go on until the end, a refusal, or a pause; true at the end.
  async run() {
    this.stop = new AbortController();
    let pause = 1;
    for (let found = false, done = false; !done;) {
      try {
        if (!found) {
          if (this.url === null || !await this.look()) await this.find();
          [found, this.since, this.start] = [true, performance.now(), this.offset];
        }
        this.show();
        done = await this.send();
        pause = 1;
      } catch (error) {
        if (this.stop.signal.aborted) return false;
        if (!(error instanceof Lost)) throw error;
        found = false;
        this.show(`${error.message} Trying again in ${pause} s.`);
        await sleep(pause, this.stop.signal);
        if (this.stop.signal.aborted) return false;
        pause = Math.min(LONGEST_PAUSE, pause * 2);
      }
    }
    localStorage.removeItem(this.memory);
    return true;
  }

  get words() {
    const seconds = (performance.now() - this.since) / 1000;
    const speed = (this.offset - this.start) / Math.max(seconds, 0.001);
    const rate = this.offset > this.start ? `, ${readable(speed)}/s` : "";
    return `${readable(this.offset)} of ${readable(this.file.size)}${rate}`;
  }
}

const form = document.getElementById("upload");
if (form) {
  const { file, place, pause } = form.elements;
  const [begin, bar] = [form.querySelector("button"), form.querySelector("progress")];
  const [count, status] = [form.querySelector(".count"), form.querySelector(".said")];
  const say = (text) => { if (status.textContent !== text) status.textContent = text; };
  let upload = null, running = Promise.resolve();

  // One after the other: what was paused a moment ago may have to end yet.
  const go = () => { running = running.then(work); };
  const work = async () => {
    begin.disabled = file.disabled = place.disabled = true;
    [pause.hidden, bar.hidden, pause.textContent] = [false, false, "Pause"];
    say("Uploading …");
    try {
      if (!await upload.run()) { say("Paused."); return; }
      bar.value = 1;
      say("Uploaded.");
      location.assign(form.dataset.page);
    } catch (error) {
      say(error.name === "NotReadableError"
        ? "The file cannot be read any more: choose it again." : error.message);
      begin.disabled = file.disabled = place.disabled = false;
      pause.hidden = true;
    }
  };

  form.parentElement.hidden = false;
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    upload = new Upload(file.files[0], place.value, (text) => {
      bar.value = upload.file.size ? upload.offset / upload.file.size : 0;
      count.textContent = upload.words;
      say(text || "Uploading …");
    });
    go();
  });
  pause.addEventListener("click", () => {
    if (pause.textContent === "Continue") { go(); return; }
    pause.textContent = "Continue";
    upload.stop.abort();
  });
}

// The running transfers, as the server tells of them.
const transfers = document.getElementById("transfers");
if (transfers) {
  const none = transfers.closest("section").querySelector(".none");
  new EventSource(transfers.dataset.stream).addEventListener("message", (event) => {
    const rows = JSON.parse(event.data);
    none.hidden = rows.length > 0;
    transfers.replaceChildren(...rows.map((cells) => {
      const row = document.createElement("tr");
      for (const text of cells) row.insertCell().textContent = text;
      return row;
    }));
  });
}

"use strict";
// Draws openapi.json. Text only ever becomes text nodes: nothing in the document can become markup.

const METHODS = ["get", "head", "post", "put", "patch", "delete", "options"];

function el(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null && child !== ""));
  return made;
}

// The part of Markdown that the document uses: paragraphs and `code`.
function prose(text) {
  const paragraphs = (text || "").trim().split(/\n\s*\n/).filter(Boolean);
  return el("div", { class: "paragraphs" }, ...paragraphs.map((paragraph) => el("p", {}, ...inline(paragraph))));
}

function inline(text) {
  return text.split("`").map((part, index) => (index % 2 ? el("code", {}, part) : part));
}

function shown(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}

function nameOf(schema) {
  if (!schema) return "";
  if (schema.$ref) return schema.$ref.split("/").pop();
  if (schema.allOf) return nameOf(schema.allOf[0]);
  if (schema.anyOf) return schema.anyOf.map(nameOf).join(" or ");
  if (schema.enum) return schema.enum.map((choice) => JSON.stringify(choice)).join(", ");
  if ("const" in schema) return JSON.stringify(schema.const);
  if (schema.type === "array") return `list of ${nameOf(schema.items) || "anything"}`;
  const bounds = [["minimum", ">="], ["maximum", "<="], ["minLength", "length >="], ["maxLength", "length <="]]
    .filter(([key]) => key in schema).map(([key, sign]) => ` ${sign} ${schema[key]}`).join(",");
  return `${schema.format || schema.title || schema.type || "anything"}${bounds}`;
}

function resolved(schema, api) {
  return schema && schema.$ref ? api.components.schemas[schema.$ref.split("/").pop()] : schema;
}

function fields(schema, api) {
  const told = resolved(schema, api);
  if (!told || !told.properties) return null;
  const required = new Set(told.required || []);
  const rows = Object.entries(told.properties).map(([name, field]) =>
    el("tr", {}, el("td", {}, el("code", {}, name), required.has(name) ? "" : " ?"), el("td", {}, nameOf(field)),
      el("td", {}, ...inline(field.description || ""))));
  return rows.length ? el("table", {}, ...rows) : null;
}

function schemaOf(schema, api) {
  const table = fields(schema, api);
  return table ? el("details", {}, el("summary", {}, nameOf(schema)), table) : el("p", {}, nameOf(schema));
}

function block(text) {
  const button = el("button", { class: "copy", type: "button" }, "copy");
  button.addEventListener("click", () => navigator.clipboard && navigator.clipboard.writeText(text));
  return el("div", {}, button, el("pre", {}, text));
}

function parameters(list) {
  if (!list.length) return [];
  const rows = list.map((one) =>
    el("tr", {}, el("td", {}, el("code", {}, one.name), one.required ? "" : " ?"), el("td", {}, one.in),
      el("td", {}, nameOf(one.schema), "default" in one.schema ? `, default ${one.schema.default}` : ""),
      el("td", {}, ...inline(one.description || ""))));
  return [el("h4", {}, "Parameters"), el("table", {}, ...rows)];
}

function body(told, api) {
  if (!told) return [];
  const parts = Object.entries(told.content).flatMap(([media, content]) => [
    el("p", {}, el("code", {}, media)), schemaOf(content.schema, api),
    "example" in content ? el("pre", {}, shown(content.example)) : "",
  ]);
  return [el("h4", {}, told.required ? "Body" : "Body, may be left out"), ...parts];
}

function answers(responses, api) {
  const rows = Object.entries(responses).map(([status, answer]) => {
    const content = Object.entries(answer.content || {});
    const good = Number(status) < 400;
    const parts = good ? content.flatMap(([media, one]) => [
      el("div", {}, el("code", {}, media)), schemaOf(one.schema, api),
      "example" in one ? el("details", {}, el("summary", {}, "example"), el("pre", {}, shown(one.example))) : "",
    ]) : [];
    const headers = good ? Object.entries(answer.headers || {}).map(([name, header]) =>
      el("div", {}, el("code", {}, name), ": ", ...inline(header.description))) : [];
    return el("tr", {}, el("td", {}, el("code", {}, status)), el("td", {}, prose(answer.description), ...parts, ...headers));
  });
  return [el("h4", {}, "Answers"), el("table", {}, ...rows)];
}

function operation(path, method, told, api) {
  const samples = (told["x-codeSamples"] || []).map((sample) => block(sample.source));
  const extra = Object.entries({ ...told["x-events"], ...told["x-websocket"] }).map(([name, schema]) =>
    el("tr", {}, el("td", {}, el("code", {}, name)), el("td", {}, schemaOf(schema, api))));
  const section = el("section", { class: "operation", id: told.operationId },
    el("span", { class: "scope" }, told["x-scope"]),
    el("h3", {}, el("span", { class: `method ${method}` }, told["x-websocket"] ? "ws" : method), " ", el("code", {}, path)),
    el("p", {}, el("strong", {}, told.summary)), prose(told.description), ...samples,
    ...parameters(told.parameters || []), ...body(told.requestBody, api), ...answers(told.responses, api),
    ...(extra.length ? [el("h4", {}, "Messages"), el("table", {}, ...extra)] : []));
  section.dataset.words = section.textContent.toLowerCase();
  return section;
}

function draw(api) {
  const page = el("main", { id: "page" }, el("h2", {}, `${api.info.title} ${api.info.version}`), prose(api.info.description),
    el("p", {}, "The same for programs: ", el("a", { href: "/openapi.json" }, "/openapi.json"), "."));
  const index = el("div", { id: "index" });
  const links = [];
  for (const tag of api.tags) {
    page.append(el("h2", {}, tag.name), prose(tag.description));
    index.append(el("h2", {}, tag.name));
    for (const [path, methods] of Object.entries(api.paths)) {
      for (const method of METHODS) {
        const told = methods[method];
        if (!told || !told.tags.includes(tag.name)) continue;
        const section = operation(path, method, told, api);
        const link = el("a", { href: `#${told.operationId}` }, el("span", { class: `method ${method}` }, method), path.replace("/api/v1", ""));
        page.append(section);
        index.append(link);
        links.push([link, section]);
      }
    }
  }
  document.getElementById("page").replaceWith(page);
  document.getElementById("index").replaceWith(index);
  document.getElementById("filter").addEventListener("input", (event) => {
    const words = event.target.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const [link, section] of links) {
      link.hidden = section.hidden = !words.every((word) => section.dataset.words.includes(word));
    }
  });
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  document.documentElement.dataset.drawn = String(links.length);
}

fetch("/openapi.json")
  .then((answer) => (answer.ok ? answer.json() : Promise.reject(new Error(`HTTP ${answer.status}`))))
  .then(draw)
  .catch((reason) => {
    document.getElementById("page").textContent = `openapi.json could not be read: ${reason.message}`;
  });

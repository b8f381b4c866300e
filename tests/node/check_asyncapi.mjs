// Prints what the AsyncAPI parser says of the document named on the command line, as JSON.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const text = await readFile(process.argv[2], "utf8");
const { document, diagnostics } = await new Parser().parse(text);
console.log(JSON.stringify({
  channels: document?.channels().all().map((channel) => channel.address()).sort() ?? null,
  diagnostics: diagnostics.map(({ severity, code, message, path }) => ({ severity, code, message, path: path.join(".") })),
}));

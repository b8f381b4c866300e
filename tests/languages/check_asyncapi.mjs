// Prints what the AsyncAPI parser says of each document named on the command line, as JSON.
import { readFile } from "node:fs/promises";
import { Parser } from "@asyncapi/parser";

const parser = new Parser();
const found = [];
for (const file of process.argv.slice(2)) {
  const { document, diagnostics } = await parser.parse(await readFile(file, "utf8"));
  found.push({
    channels: document?.channels().all().map((channel) => channel.address()).sort() ?? null,
    diagnostics: diagnostics.map(({ severity, message, path }) => (
      { severity, message, path: path.join(".") }
    )),
  });
}
console.log(JSON.stringify(found));

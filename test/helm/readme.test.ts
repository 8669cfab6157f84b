import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, it } from 'node:test';
import { CHART } from './chart.ts';
import { makeValuesTable } from './values-table.ts';

describe("the chart's README", () => {
  it('has the table of all values as they are', () => {
    const path = join(CHART, 'README.md');
    const page = readFileSync(path, 'utf8');
    const [before = '', , after = ''] = page.split(/(?<=-->\n)(.*)(?=<!-- \/values -->)/s);
    const table = makeValuesTable(readFileSync(join(CHART, 'values.yaml'), 'utf8'));
    const wanted = `${before}\n${table}\n${after}`;
    if (process.env.UPDATE) writeFileSync(path, wanted);
    else assert.equal(page, wanted, 'out of date: UPDATE=1 node --test test/helm/readme.test.ts');
  });

  it('takes comments of several lines, nested values and empty lists as they are meant', () => {
    const table = makeValuesTable(
      '# a group\na:\n  # one\n  # two | three\n  b: 0 3 * * *\n  c: []\nd: {e: 1}\nf: {}\n',
    );
    assert.deepEqual(table.split('\n').slice(2), [
      '| `a` |  | a group |',
      '| `a.b` | `0 3 * * *` | one two \\| three |',
      '| `a.c` | `[]` |  |',
      '| `d.e` | `1` |  |',
      '| `f` | `{}` |  |',
      '',
    ]);
  });
});

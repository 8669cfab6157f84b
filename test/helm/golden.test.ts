import assert from 'node:assert/strict';
import { readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { before, describe, it } from 'node:test';
import { stringify } from 'yaml';
import { HELM_MS, listValueSets, render } from './chart.ts';
import { helm } from './helm.ts';

const GOLDEN = join(import.meta.dirname, 'golden');

/** Cleaned of what Helm's version decides: order, comments, the way in which texts are quoted. */
describe('the manifests of all value sets', async () => {
  before(() => helm('version'), { timeout: HELM_MS });
  const sets = await listValueSets();

  for (const { name, values } of sets) {
    it(`are as they were: ${name}`, async () => {
      const manifests = await render(values);
      const text = manifests
        .map((manifest) => stringify(manifest, { lineWidth: 0, sortMapEntries: true }))
        .join('---\n');
      const file = join(GOLDEN, `${name}.yaml`);
      if (process.env.UPDATE) await writeFile(file, text);
      else assert.equal(text, await readFile(file, 'utf8'), 'changed: UPDATE=1 node --test test/helm/golden.test.ts');
    });
  }

  it('are those of the value sets that there are', async () => {
    const known = new Set(sets.map(({ name }) => `${name}.yaml`));
    const strays = (await readdir(GOLDEN)).filter((file) => !known.has(file));
    if (process.env.UPDATE) for (const file of strays) await rm(join(GOLDEN, file));
    else assert.deepEqual(strays, []);
    assert.ok(sets.length >= 12);
  });
});

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { describe, it } from 'node:test';
import { makeSettingsTable } from '../../src/config-table.ts';

const PAGE = new URL('../../docs/configuration.md', import.meta.url);

describe('the page about configuration', () => {
  it('has the table of all settings as they are', () => {
    const page = readFileSync(PAGE, 'utf8');
    const [before = '', , after = ''] = page.split(/(?<=-->\n)(.*)(?=<!-- \/settings -->)/s);
    const wanted = `${before}\n${makeSettingsTable()}\n${after}`;
    if (process.env.UPDATE) writeFileSync(PAGE, wanted);
    else assert.equal(page, wanted, 'out of date: UPDATE=1 node --test test/unit/config-table.test.ts');
  });
});

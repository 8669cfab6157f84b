/** Our own code, broken on purpose in one place, in a copy of it. */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';

/** In `file`, `to` stands in the place of `from`. */
export type Mutation = { readonly name: string; readonly file: string; readonly from: string; readonly to: string };

const ROOT = resolve(import.meta.dirname, '../..');

/** Does the work with the folder of a copy of the project that has the mutation; the copy is gone afterwards. */
export async function withMutant<Value>(
  { name, file, from, to }: Mutation,
  work: (dir: string) => Promise<Value>,
): Promise<Value> {
  const dir = mkdtempSync(join(tmpdir(), 'sidehook-mutation-'));
  try {
    for (const part of ['src', 'test', 'package.json']) cpSync(join(ROOT, part), join(dir, part), { recursive: true });
    symlinkSync(join(ROOT, 'node_modules'), join(dir, 'node_modules'));
    const text = readFileSync(join(dir, file), 'utf8');
    if (!text.includes(from)) throw new Error(`mutation ${name}: ${file} has no such place any more`);
    writeFileSync(
      join(dir, file),
      text.replace(from, () => to),
    );
    return await work(dir);
  } finally {
    rmSync(dir, { recursive: true });
  }
}

import { mkdirSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Leaves the whole story of a broken law for whoever looks into it. */
export function writeStory(name: string, violations: readonly string[], story: string): void {
  const dir = join(tmpdir(), 'sidehook-faults-stories');
  mkdirSync(dir, { recursive: true });
  const path = join(dir, `${name.replaceAll(/[^\w#-]+/g, '_')}.txt`);
  writeFileSync(path, `${name}\n${violations.join('\n')}\n${story}`);
  console.error(`story: ${path}`);
}

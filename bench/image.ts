/** What the image has beside its base. */
import { readdir, stat } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import type { Row } from './measure.ts';
import type { Stage } from './stage.ts';

const BYTES_PER_MB = 1_000_000;

/** The bundle, and its compile cache filled as the Dockerfile fills it: the layers that are not Node's own. */
export async function measureImage(stage: Stage): Promise<readonly Row[]> {
  const dir = dirname(stage.bundle);
  const entries = await readdir(dir, { recursive: true, withFileTypes: true });
  const sizes = entries.filter((entry) => entry.isFile()).map(({ name, parentPath }) => stat(join(parentPath, name)));
  const bytes = (await Promise.all(sizes)).reduce((sum, { size }) => sum + size, 0);
  const row = { work: 'image: what is added', against: 'node:26-alpine' };
  return [{ goal: { id: 'G11', most: 3 }, ...row, unit: 'MB', ours: [bytes / BYTES_PER_MB], theirs: [0] }];
}

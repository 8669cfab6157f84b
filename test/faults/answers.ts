/** What clients were answered, as it lay there to be read. */
import { readdirSync, readFileSync, watch } from 'node:fs';
import { join } from 'node:path';

export type Answers = Disposable & {
  /** By request; several texts: an answer was changed after it had been given. */
  seen(): Readonly<Record<string, readonly string[]>>;
};

/** Watches the answers of a published shared directory from now on. */
export function watchAnswers(runDir: string): Answers {
  const dir = join(runDir, 'spool/out');
  const found = new Map<string, string[]>();
  const look = (): void => {
    for (const name of readdirSync(dir)) {
      if (!name.endsWith('.ans')) continue;
      const texts = found.get(name) ?? [];
      const text = read(join(dir, name));
      if (text !== undefined && !texts.includes(text)) texts.push(text);
      found.set(name, texts);
    }
  };
  const watcher = watch(dir, look);
  return {
    seen() {
      look();
      return Object.fromEntries(found);
    },
    [Symbol.dispose]: () => watcher.close(),
  };
}

/** undefined: it is gone. */
function read(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8');
  } catch {
    return undefined;
  }
}

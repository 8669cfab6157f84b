import { accessSync, constants, realpathSync, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';

/** A directory or file of ours, by the setting that names it. */
export type Place = { readonly name: string; readonly path: string };

/**
 * Complains of hooks, state or settings that lie where a client can write, and of a shared directory inside one of
 * ours: what is shared and what is ours lie apart. Sees through symlinks and through a directory mounted twice.
 */
export function complaintsOfPlaces(shared: Place, own: readonly Place[]): string[] {
  return own.flatMap((place) => {
    if (liesIn(place.path, shared.path)) {
      return [`${place.name} (${place.path}): lies in ${shared.name} (${shared.path}), where every client can write`];
    }
    if (liesIn(shared.path, place.path)) {
      return [`${shared.name} (${shared.path}): lies in ${place.name} (${place.path}), which no client may have`];
    }
    return [];
  });
}

/** Whether anyone at all could write this, and its mount does not forbid it. What is absent, nobody can. */
export function isWritableByOthers(path: string): boolean {
  try {
    if ((statSync(path).mode & constants.S_IWOTH) === 0) return false;
  } catch {
    return false;
  }
  try {
    accessSync(path, constants.W_OK);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code !== 'EROFS';
  }
}

function liesIn(path: string, directory: string): boolean {
  const target = realPathOf(directory);
  const identity = identityOf(target);
  for (let at = realPathOf(path); ; at = dirname(at)) {
    if (at === target || (identity !== undefined && identityOf(at) === identity)) return true;
    if (at === dirname(at)) return false;
  }
}

/** The same directory has the same numbers, however often it is mounted. */
function identityOf(path: string): string | undefined {
  try {
    const { dev, ino } = statSync(path, { bigint: true });
    return `${dev}:${ino}`;
  } catch {
    return undefined;
  }
}

/** Where a path leads; what does not exist yet stays as it is written, below what does. */
function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path === dirname(path) ? path : join(realPathOf(dirname(path)), basename(path));
  }
}

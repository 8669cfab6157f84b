/** Engines of their own for stories that are played side by side; one that was hurt is not used again. */
import { openPrivateEngine, type PrivateEngine } from '../support/engine-private.ts';
import { BUSYBOX, ensureImage } from '../support/images.ts';
import { withLock } from '../support/install.ts';

/** As dockerd is when nothing is said, or with `--live-restore`. */
export type Kind = 'plain' | 'live';

/** An engine that has the image, for one story. */
export type Lane = {
  readonly engine: PrivateEngine;
  /** The story is over. What was hurt ends; what is whole is for the next one. */
  giveBack(how: 'whole' | 'hurt'): Promise<void>;
};

export type Lanes = AsyncDisposable & {
  /** `kind`: undefined: any. */
  take(kind: Kind | undefined): Promise<Lane>;
};

/** Opens no more than are out at a time. */
export function openLanes(): Lanes {
  const idle: { readonly kind: Kind; readonly engine: PrivateEngine }[] = [];

  return {
    async take(wanted) {
      const at = idle.findIndex(({ kind }) => wanted === undefined || kind === wanted);
      const found = at === -1 ? undefined : idle.splice(at, 1)[0];
      if (found === undefined) await idle.pop()?.engine[Symbol.asyncDispose](); // of the other kind, in our place
      const kind = found?.kind ?? wanted ?? 'plain';
      const engine = found?.engine ?? (await openPrivateEngine(kind === 'live' ? ['--live-restore'] : []));
      const giveBack: Lane['giveBack'] = async (how) => {
        if (how === 'whole') idle.push({ kind, engine });
        else await engine[Symbol.asyncDispose]();
      };
      try {
        await ensureImageOn(engine);
      } catch (error) {
        await giveBack('hurt');
        throw error;
      }
      return { engine, giveBack };
    },
    async [Symbol.asyncDispose]() {
      for (const { engine } of idle.splice(0)) await engine[Symbol.asyncDispose]();
    },
  };
}

/** Whatever became of the image before. */
async function ensureImageOn(engine: PrivateEngine): Promise<void> {
  // The support for images speaks to the one engine of the process
  await withLock('faults-image', async () => {
    const { DOCKER_HOST: before } = process.env;
    process.env.DOCKER_HOST = engine.host;
    try {
      await ensureImage(BUSYBOX);
    } finally {
      if (before === undefined) delete process.env.DOCKER_HOST;
      else process.env.DOCKER_HOST = before;
    }
  });
}

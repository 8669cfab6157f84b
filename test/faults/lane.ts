/** An engine of its own for one story after the other; one that was hurt is not used again. */
import { openPrivateEngine, type PrivateEngine } from '../support/engine-private.ts';
import { BUSYBOX, ensureImage } from '../support/images.ts';
import { withLock } from '../support/install.ts';

export type Lane = AsyncDisposable & {
  readonly engine: PrivateEngine;
  /** Has the image, whatever became of it before. */
  ensureImage(): Promise<void>;
};

/** Opens an engine that has the image. */
export async function openLane(options: readonly string[] = []): Promise<Lane> {
  const engine = await openPrivateEngine(options);
  const ensure = async (): Promise<void> => {
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
  };
  try {
    await ensure();
  } catch (error) {
    await engine[Symbol.asyncDispose]();
    throw error;
  }
  return { engine, ensureImage: ensure, [Symbol.asyncDispose]: () => engine[Symbol.asyncDispose]() };
}

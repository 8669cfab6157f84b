/**
 * Loaded before the daemon (`node --import`): every journal write and every engine call of it goes through
 * tap-points.ts. It stands where the daemon imports its journal and its way to the engine, and changes nothing of both.
 */
import { flushCompileCache, registerHooks } from 'node:module';

const TAPPED: Readonly<Record<string, string>> = {
  '/src/journal.ts': 'tap-journal.ts',
  '/src/drivers/docker-api.ts': 'tap-docker-api.ts',
};

registerHooks({
  resolve(specifier, context, nextResolve) {
    const found = nextResolve(specifier, context);
    if (context.parentURL?.includes('/test/faults/')) return found; // the tap itself wants the real one
    const tapped = Object.keys(TAPPED).find((path) => found.url.endsWith(path));
    return tapped === undefined ? found : { ...found, url: new URL(TAPPED[tapped] ?? '', import.meta.url).href };
  },
});

// What is compiled is kept for the next life (NODE_COMPILE_CACHE); a process that is killed does not do so by itself.
setTimeout(flushCompileCache, 1500).unref();

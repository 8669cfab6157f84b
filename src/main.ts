import { inspect } from 'node:util';
import metadata from '../package.json' with { type: 'json' };
import type { Edge } from './cli/edge.ts';
import { runVerb } from './cli/verbs.ts';

const EXIT_BUG = 70;

/** Whatever was not foreseen ends the process: a daemon starts anew and recovers, a client's lease ends. */
function fall(error: unknown): never {
  console.error(inspect(error));
  process.exit(EXIT_BUG);
}

// A reader that went away (`sidehook status | head -1`) is no reason to give up a run.
for (const stream of [process.stdout, process.stderr]) stream.on('error', () => undefined);
process.on('uncaughtException', fall);
process.on('unhandledRejection', fall);

const edge: Edge = { env: process.env, out: process.stdout, err: process.stderr, posix: process };
process.exit(await runVerb(process.argv.slice(2), edge, metadata.version));

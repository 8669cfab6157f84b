import { nearestTo } from '../config-nearest.ts';
import { exitCodeOfError, OperationalError } from '../core/errors.ts';
import { type Edge, makeVoice, print } from './edge.ts';
import { parseGiven, type Verb, wrongUsage } from './verb.ts';

type Entry = { readonly summary: string; readonly load: () => Promise<{ readonly verb: Verb }> };

/** Each is loaded when it is asked for: a client should not pay for the daemon. */
const VERBS: Readonly<Record<string, Entry>> = {
  run: { summary: 'run a command between the hooks before and after it', load: () => import('./run.ts') },
  signal: { summary: 'send one signal: pre, inspect, captured, post', load: () => import('./signal.ts') },
  plan: { summary: 'show what a signal would lead to', load: () => import('./plan.ts') },
  status: { summary: 'show which runs are open and what is held', load: () => import('./status.ts') },
  recover: { summary: 'finish what lost sidecars left (Kubernetes)', load: () => import('./recover.ts') },
  release: { summary: 'release what is held, at once', load: () => import('./release.ts') },
  doctor: { summary: 'check whether all is set up to keep its promises', load: () => import('./doctor.ts') },
  config: { summary: 'print the settings and where each came from', load: () => import('./config.ts') },
  health: { summary: 'tell by exit code whether the daemon does its work', load: () => import('./health.ts') },
  serve: { summary: 'be the daemon', load: () => import('./serve-verb.ts') },
};

/** In the design, and not in this version: better refused by name than taken for a misspelling. */
const LATER = ['rehearse', 'history'];

/** Runs one verb and resolves to the exit code. Throws only what is a bug. */
export async function runVerb(args: readonly string[], edge: Edge, version: string): Promise<number> {
  const [name, ...rest] = args;
  const entry = name !== undefined && Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
  try {
    if (name === 'help' || name === '--help' || name === '-h') return await help(rest, edge);
    if (name === 'version' || name === '--version') {
      await print(edge.out, `${version}\n`);
      return 0;
    }
    if (name !== undefined && LATER.includes(name))
      throw new OperationalError('configuration', `${name}: not in this version`);
    if (name === undefined) throw wrongUsage('which verb?');
    if (entry === undefined) throw noSuchVerb(name);
    const { verb } = await entry.load();
    if (asksForHelp(rest)) return await help([name], edge);
    return await verb.start(parseGiven(rest, verb.options), edge);
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    const voice = makeVoice(edge, 'out');
    await voice.say(error.message);
    if (error.code === 'invalid-request')
      await print(edge.err, `Try: sidehook help${entry === undefined ? '' : ` ${name}`}\n`);
    return exitCodeOfError(error);
  }
}

function noSuchVerb(name: string): OperationalError {
  return wrongUsage(`${name}: no such verb${nearestTo(name, Object.keys(VERBS))}`);
}

function asksForHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--');
  return (end < 0 ? args : args.slice(0, end)).some((arg) => arg === '--help' || arg === '-h');
}

async function help([name, ...more]: readonly string[], { out }: Edge): Promise<number> {
  if (more.length > 0) throw wrongUsage(`${more[0]}: not expected`);
  if (name === undefined) {
    const width = Math.max(...Object.keys(VERBS).map((verb) => verb.length));
    const lines = Object.entries(VERBS).map(([verb, { summary }]) => `  ${verb.padEnd(width)}  ${summary}\n`);
    await print(out, `sidehook VERB [options]\n\n${lines.join('')}\nsidehook help VERB says more.\n`);
    return 0;
  }
  const entry = Object.hasOwn(VERBS, name) ? VERBS[name] : undefined;
  if (entry === undefined) throw noSuchVerb(name);
  const { verb } = await entry.load();
  await print(out, `sidehook ${verb.usage}\n\n${verb.help}\n`);
  return 0;
}

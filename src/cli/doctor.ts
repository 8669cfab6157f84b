import type { LoadedConfig } from '../config.ts';
import { ERRORS, OperationalError } from '../core/errors.ts';
import type { Finding } from '../core/finding.ts';
import { driverOptionsOf } from '../daemon.ts';
import { openHost } from '../drivers/host.ts';
import { openDriver } from '../drivers/open.ts';
import { openLog } from '../log.ts';
import { examineDaemon } from './doctor-daemon.ts';
import { examineClock, examineDirectories, examineHooks } from './doctor-local.ts';
import { examinePlans } from './doctor-plans.ts';
import { type Edge, EXIT_CODE_OF_SIGNAL, untilTold } from './edge.ts';
import { configOf, makeTable, OPERATOR_HELP, OPERATOR_OPTIONS, show } from './operator.ts';
import { type Given, type Verb, wordsOf, wrongUsage } from './verb.ts';

/** `doctor`: whether all is set up so that the promises can be kept. */
export const verb: Verb = {
  usage: 'doctor [--json]',
  help: `Checks the settings, the clock, the directories, the daemon, the engine and each permission that is needed there,
the restart policy, the hooks, and whether a plan can be made for each operation. Changes nothing. Exits with 78 when
something must be mended, with 69 when the engine does not answer, else with 0. Run it where the daemon runs:
docker compose exec sidehook sidehook doctor

${OPERATOR_HELP}`,
  options: OPERATOR_OPTIONS,
  start,
};

/** For a look at the engine, and for what is asked of it then. */
const PATIENCE_MS = 30_000;

async function start(given: Given, edge: Edge): Promise<number> {
  wordsOf(given);
  if (given.rest !== undefined) throw wrongUsage('-- : not expected');
  using stopping = untilTold(edge.posix);
  try {
    const { findings, isEngineAway } = await examineAll(given, edge, stopping.signal);
    const count = (level: Finding['level']): number => findings.filter((one) => one.level === level).length;
    await show(given, edge, { ok: count('fail') === 0, findings }, () => describe(findings));
    if (isEngineAway) return ERRORS['engine-unavailable'].exit;
    return count('fail') === 0 ? 0 : ERRORS.configuration.exit;
  } catch (error) {
    const told = stopping.told();
    if (told === undefined || error !== stopping.signal.reason) throw error;
    return EXIT_CODE_OF_SIGNAL[told];
  }
}

type Examined = { readonly findings: readonly Finding[]; readonly isEngineAway?: true };

async function examineAll(given: Given, edge: Edge, signal: AbortSignal): Promise<Examined> {
  const settings = examineSettings(given, edge);
  if (settings.loaded === undefined) return settings;
  const { config } = settings.loaded;
  const log = openLog({ ...config.log, level: 'error', env: edge.env });
  const host = openHost({ hooksDir: config.hooks.dir, env: edge.env, sharedDir: config.run.dir, log });
  const daemon = await examineDaemon(settings.loaded, signal);
  const findings = [
    ...settings.findings,
    ...(await examineClock(signal)),
    ...(await examineDirectories(config)),
    ...daemon.findings,
    ...(await examineHooks(host, config, edge.env)),
  ];
  try {
    await using driver = await openDriver(driverOptionsOf(config, { env: edge.env, log }));
    const limited = <Value>(work: (limit: AbortSignal) => Promise<Value>): Promise<Value> => withLimit(work, signal);
    const plans = await limited((limit) => examinePlans({ host, driver, config, held: daemon.held }, limit));
    const engine = await limited((limit) => driver.examine(plans.uses, limit));
    return { findings: withoutDoubles([...findings, ...engine, ...plans.findings]) };
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    const failed: Finding = { what: 'engine', level: 'fail', says: error.message };
    const all = [...findings, failed];
    return error.code === 'engine-unavailable' ? { findings: all, isEngineAway: true } : { findings: all };
  }
}

/** What is unknown stops the daemon, and not the examination. */
function examineSettings(
  given: Given,
  edge: Edge,
): { readonly findings: readonly Finding[]; readonly loaded?: LoadedConfig } {
  const what = 'configuration';
  try {
    const loaded = configOf(given, edge, 'strict');
    const said = Object.values(loaded.origins).filter(({ from }) => from !== 'default').length;
    return { findings: [{ what, level: 'ok', says: `${said} settings differ from their defaults` }], loaded };
  } catch (error) {
    if (!(error instanceof OperationalError)) throw error;
    const findings = error.message.split('\n').map((says): Finding => ({ what, level: 'fail', says }));
    try {
      return { findings, loaded: configOf(given, edge, 'lenient') };
    } catch (again) {
      if (!(again instanceof OperationalError)) throw again;
      return { findings };
    }
  }
}

/** An engine that is silent is away, for us as for a signal. */
async function withLimit<Value>(work: (limit: AbortSignal) => Promise<Value>, signal: AbortSignal): Promise<Value> {
  const limit = AbortSignal.timeout(PATIENCE_MS);
  try {
    return await work(AbortSignal.any([signal, limit]));
  } catch (error) {
    signal.throwIfAborted();
    if (error !== limit.reason) throw error;
    throw new OperationalError('engine-unavailable', `no answer within ${PATIENCE_MS / 1000}s`, { cause: error });
  }
}

/** The same may be found in several ways: its first, and most serious, stands. */
function withoutDoubles(findings: readonly Finding[]): readonly Finding[] {
  const said = new Set<string>();
  return findings.filter(({ level, says }) => {
    if (level !== 'ok' && said.has(says)) return false;
    said.add(says);
    return true;
  });
}

function describe(findings: readonly Finding[]): string {
  const [failed, warned] = (['fail', 'warn'] as const).map(
    (level) => findings.filter((one) => one.level === level).length,
  );
  const rows = makeTable(findings.map(({ level, what, says }) => [level, what, says]));
  return `${rows}${failed} to mend, ${warned} to think about\n`;
}

import type { Tools } from './tools.ts';

/** How long the engine may take to remember something. */
const REMEMBER_MS = 30_000;

/** Has the engine remember how far a run is. @throws OperationalError as `Ledger.record` */
export async function remember(runId: string, { driver, journal, clock }: Tools): Promise<void> {
  const run = journal.run(runId);
  if (driver.ledger === undefined || run === undefined) return;
  await driver.ledger.record(run, journal.steps(runId), clock.deadline(REMEMBER_MS));
}

/** The same where it must hold nothing up: what is not remembered is done again by whoever finishes the run. */
export async function rememberIfCan(runId: string, tools: Tools): Promise<void> {
  const { driver, journal, log, clock } = tools;
  if (driver.ledger === undefined) return;
  try {
    if (journal.run(runId)?.phase === 'closed') await driver.ledger.close(runId, clock.deadline(REMEMBER_MS));
    else await remember(runId, tools);
  } catch (error) {
    log.warn('the engine was not told how far a run is', { run: runId, why: String(error) });
  }
}

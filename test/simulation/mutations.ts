/**
 * Breaks our own code on purpose, one place at a time in a copy of it, and shows that the simulation finds out:
 *
 *   node test/simulation/mutations.ts [--seeds N] [NAME]...
 *
 * Prints a line for each: the first seed that breaks a law, and which. Exits 1 if one goes unnoticed.
 */
import { parseArgs } from 'node:util';
import { execa } from 'execa';
import { type Mutation, withMutant } from '../support/mutant.ts';

const MUTATIONS: readonly Mutation[] = [
  {
    name: 'a hold is written down only after the stop',
    file: 'src/run/hold.ts',
    from: '    journal.addHold(makeHold(spec, found, clock.now()), run.id); // first the promise, then the deed\n  }\n\n  const began = clock.monotonicMs();\n  const still = await driver.hold(ref, spec.kind, spec.stopTimeoutMs, signal);',
    to: "  }\n  const began = clock.monotonicMs();\n  const still = await driver.hold(ref, spec.kind, spec.stopTimeoutMs, signal);\n  if (known === undefined) journal.addHold(makeHold(spec, { ...still, startedAt: (ref as Workload).startedAt, health: 'healthy' }, clock.now()), run.id);",
  },
  {
    name: 'releases in any order',
    file: 'src/run/release.ts',
    from: 'holds.map(({ key, after: others }) => [key, others])',
    to: 'holds.map(({ key }) => [key, []])',
  },
  {
    name: 'health is not awaited',
    file: 'src/run/rise.ts',
    from: "if (!hold.awaitHealth || now.health === 'healthy'",
    to: "if (hold.awaitHealth || now.health === 'healthy'",
  },
  {
    name: 'a lease never ends',
    file: 'src/run/guard.ts',
    from: 'await lease?.lost(signal);',
    to: 'await new Promise(() => undefined);',
  },
  {
    name: 'the same request is carried out again',
    file: 'src/run/conduct.ts',
    from: 'if (known !== undefined) return delivery.answer(known);',
    to: '',
  },
  {
    name: 'a pre that failed is not undone',
    file: 'src/run/pre.ts',
    from: 'const undone = await finish(ended, shared, delivery.output);',
    to: 'const undone: Answer = { exitCode: 0, notes: [] }; void ended;',
  },
  {
    name: 'a run that is being unwound does not count on its holds',
    file: 'src/run/release.ts',
    from: "['pre', 'open', 'post', ...(awaitsKept",
    to: "['pre', 'open', ...(awaitsKept",
  },
  {
    name: 'a shared hold is released by the first',
    file: 'src/run/release.ts',
    from: 'if (others.length > 0) {',
    to: 'if (others.length > 9) {',
  },
  {
    name: 'a failed restore lets go',
    file: 'src/core/unwinding.ts',
    from: "keep: isHalfRestored(run) && failedRestore === 'keep',",
    to: "keep: isHalfRestored(run) && failedRestore !== 'keep',",
  },
  {
    name: 'a lost hold is not told (65)',
    file: 'src/run/finish.ts',
    from: "...distrustOf(run, tools).map((why) => ({ exitCode: ERRORS['not-trusted'].exit, why })),",
    to: '',
  },
  {
    name: 'a post that was cut off does not go on',
    file: 'src/run/recover.ts',
    from: 'work.push(goOn(run, shared));',
    to: 'work.push(Promise.resolve());',
  },
  {
    name: 'what holds for too long is not given up',
    file: 'src/run/guard.ts',
    from: 'if (Number.isFinite(maxMs)) {',
    to: 'if (maxMs < 0) {',
  },
  {
    name: 'a project that is being stopped is not heeded',
    file: 'src/run/siblings.ts',
    from: 'return await driver.findStopping?.(held, forMs, signal);',
    to: 'return undefined;',
  },
  {
    name: 'post hooks are left out',
    file: 'src/run/unwind.ts',
    from: 'for (const step of plan.running) hooks.push(await runOwed(step, run, tools, edges));',
    to: '',
  },
  {
    name: 'what was not begun counts as our stop',
    file: 'src/run/rise.ts',
    from: "return 'hold-then-start'; // we asked, and never learnt what became of it",
    to: "return 'up';",
  },
  {
    name: 'leftovers of a dead sidecar run on',
    file: 'src/run/recover.ts',
    from: 'await Promise.all(runs.map((run) => endLeftovers(run, shared)));',
    to: '',
  },
  {
    name: 'a pre whose sender is gone goes on',
    file: 'src/run/pre.ts',
    from: "() => gone.abort(new Error('its client is gone')),",
    to: '() => undefined,',
  },
  {
    name: 'what was found stopped is not watched',
    file: 'src/run/stillness.ts',
    from: 'if (found === undefined || !hasRun(left, found)) return;',
    to: 'return;',
  },
  {
    name: 'no last look is taken before a release',
    file: 'src/run/unwind.ts',
    from: "if (run.outcome === 'success') await confirmStill(run, tools, edges);",
    to: '',
  },
];

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { seeds: { type: 'string', default: '3000' } },
});
const meant = MUTATIONS.filter(({ name }) => positionals.length === 0 || positionals.includes(name));
let unnoticed = 0;
for (const mutation of meant) {
  const found = await tryOut(mutation);
  if (found === undefined) unnoticed += 1;
  console.log(`| ${mutation.name} | ${found ?? 'UNNOTICED'} |`);
}
if (unnoticed > 0) process.exitCode = 1;

/** What the first world that breaks a law says of it. */
function tryOut(mutation: Mutation): Promise<string | undefined> {
  return withMutant(mutation, async (cwd) => {
    const args = ['test/simulation/explore.ts', '--count', values.seeds, '--first'];
    const { stdout } = await execa(process.execPath, args, { cwd, reject: false });
    return /^([^:]+): 1: (\d+)$/m.exec(stdout)?.slice(1, 3).join(', seed ');
  });
}

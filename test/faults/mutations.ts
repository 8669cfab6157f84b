/**
 * Breaks our own code on purpose, one place at a time in a copy of it, and shows that the kills on a real engine find out:
 *
 *   node test/run.ts --engine -- node test/faults/mutations.ts [NAME]...
 *
 * Prints a line for each: the law that was broken first, and where. Exits 1 if one goes unnoticed.
 */
import { execa } from 'execa';
import { ensureDockerCli } from '../support/install.ts';
import { type Mutation, withMutant } from '../support/mutant.ts';

/** With the story of cases.ts that is to find out. */
type Tried = Mutation & { readonly story: string };

const MUTATIONS: readonly Tried[] = [
  {
    name: 'a hold is written down only after the stop',
    story: 'a backup',
    file: 'src/run/hold.ts',
    from: '    journal.addHold(makeHold(spec, found, clock.now()), run.id); // first the promise, then the deed\n  }\n\n  const began = clock.monotonicMs();\n  const still = await driver.hold(ref, spec.kind, spec.stopTimeoutMs, signal);',
    to: "  }\n  const began = clock.monotonicMs();\n  const still = await driver.hold(ref, spec.kind, spec.stopTimeoutMs, signal);\n  if (known === undefined) journal.addHold(makeHold(spec, { ...still, startedAt: (ref as Workload).startedAt, health: 'healthy' }, clock.now()), run.id);",
  },
  {
    name: 'a hold counts as released before the start',
    story: 'a backup',
    file: 'src/run/release.ts',
    from: "change({ status: 'releasing' });",
    to: "change({ status: 'released', releasedAt: clock.now() });",
  },
  {
    name: 'releases in any order',
    story: 'a backup',
    file: 'src/run/release.ts',
    from: 'holds.map(({ key, after: others }) => [key, others])',
    to: 'holds.map(({ key }) => [key, []])',
  },
  {
    name: 'holds in any order',
    story: 'a backup',
    file: 'src/run/hold.ts',
    from: 'await walkGraph(stopsAfter, async (key) => {',
    to: 'await walkGraph(new Map([...stopsAfter.keys()].map((key) => [key, []])), async (key) => {',
  },
  {
    name: 'health is not awaited',
    story: 'a backup',
    file: 'src/run/rise.ts',
    from: "if (!hold.awaitHealth || now.health === 'healthy'",
    to: "if (hold.awaitHealth || now.health === 'healthy'",
  },
  {
    name: 'post hooks are left out',
    story: 'a backup',
    file: 'src/run/unwind.ts',
    from: 'for (const step of plan.running) hooks.push(await runOwed(step, run, tools, edges));',
    to: '',
  },
  {
    name: 'a pre whose run is over is begun again',
    story: 'a backup whose last hook fails',
    file: 'src/run/recover.ts',
    from: 'if (over !== undefined) keepAnswer(request, leaseRef, answerCut(over), shared);',
    to: '',
  },
  {
    name: 'a pre that a crash cut off is not unwound',
    story: 'a backup',
    file: 'src/run/recover.ts',
    from: "else if (run.phase === 'pre' || itsPre !== undefined) work.push(unwindPre(run, itsPre, intakes, shared));",
    to: "else if (run.phase === 'pre' || itsPre !== undefined) continue;",
  },
  {
    name: 'what was not begun counts as our stop',
    story: 'in the middle of a stop',
    file: 'src/run/rise.ts',
    from: "return 'hold-then-start'; // we asked, and never learnt what became of it",
    to: "return 'up';",
  },
  {
    name: 'leftovers of a dead sidecar run on',
    story: 'in the middle of a hook',
    file: 'src/run/recover.ts',
    from: 'await Promise.all(runs.map((run) => endLeftovers(run, shared)));',
    to: '',
  },
  {
    name: 'a pre that failed is not undone',
    story: 'a backup whose last hook fails',
    file: 'src/run/pre.ts',
    from: 'const undone = await finish(ended, shared, delivery.output);',
    to: 'const undone: Answer = { exitCode: 0, notes: [] }; void ended;',
  },
  {
    name: 'a failed restore lets go',
    story: 'a restore that fails',
    file: 'src/core/unwinding.ts',
    from: "keep: isHalfRestored(run) && failedRestore === 'keep',",
    to: "keep: isHalfRestored(run) && failedRestore !== 'keep',",
  },
  {
    name: 'the word that the command starts is not written down',
    story: 'a restore that fails',
    file: 'src/run/post.ts',
    from: 'shared.tools.journal.changeRun(run.id, { commandStarted: true });',
    to: '',
  },
  {
    name: 'a lease never ends',
    story: 'a backup whose client is killed',
    file: 'src/run/guard.ts',
    from: 'await lease?.lost(signal);',
    to: 'await new Promise(() => undefined);',
  },
  {
    name: 'a post that was cut off does not go on',
    story: 'a backup whose client is killed',
    file: 'src/run/recover.ts',
    from: 'work.push(goOn(run, shared));',
    to: 'work.push(Promise.resolve());',
  },
  {
    name: 'a shared hold is released by the first',
    story: 'two backups that share what they hold',
    file: 'src/run/release.ts',
    from: 'if (others.length > 0) {',
    to: 'if (others.length > 9) {',
  },
  {
    name: 'a shared hold is not joined',
    story: 'two backups that share what they hold',
    file: 'src/run/hold.ts',
    from: 'journal.joinHold(spec.key, run.id);',
    to: '',
  },
  {
    name: 'the same request is carried out again',
    story: 'a backup',
    file: 'src/run/conduct.ts',
    from: 'if (known !== undefined) return delivery.answer(known);',
    to: '',
  },
];

const wanted = process.argv.slice(2);
await ensureDockerCli(['compose']);
let unnoticed = 0;
for (const mutation of MUTATIONS.filter(({ name }) => wanted.length === 0 || wanted.includes(name))) {
  const found = await tryOut(mutation);
  if (found === undefined) unnoticed += 1;
  console.log(`| ${mutation.name} | ${found ?? 'UNNOTICED'} |`);
}
if (unnoticed > 0) process.exitCode = 1;

/** What the first run that breaks a law says of it. */
function tryOut(mutation: Tried): Promise<string | undefined> {
  return withMutant(mutation, async (cwd) => {
    const args = ['test/faults/first-broken.ts', mutation.story];
    const { stdout, failed } = await execa(process.execPath, args, { cwd, reject: false, stderr: 'inherit' });
    if (failed) throw new Error(`mutation ${mutation.name}: ${stdout}`);
    return stdout.trim() === '' ? undefined : stdout.trim();
  });
}

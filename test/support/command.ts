import { constants } from 'node:os';
import { execa } from 'execa';

/** Resolves to the exit code, as a shell tells it. A signal to us is one to the command, which we outlive to clean up. */
export async function runCommand(
  command: string,
  args: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<number> {
  const child = execa(command, args, { stdio: 'inherit', reject: false, env });
  const passOn = (signal: NodeJS.Signals) => child.kill(signal);
  const passOnInterrupt = () => process.stdin.isTTY || passOn('SIGINT'); // a terminal sends it to the command itself
  process.on('SIGTERM', passOn).on('SIGHUP', passOn).on('SIGINT', passOnInterrupt);
  const { exitCode, signal } = await child;
  return exitCode ?? 128 + (signal ? constants.signals[signal] : 0);
}

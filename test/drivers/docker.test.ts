import { driverContract } from './contract.ts';
import { openDockerBench } from './docker-bench.ts';

driverContract('docker', openDockerBench);

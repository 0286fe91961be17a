// Forward: one control step of a pack (CPU) or of a lane of one (CUDA). @NAME@ stands for a traced part.
static CUDA_CALLABLE NOINLINE void run(
 int thread,Address config_,Address trajectory_,Address state_,Address action_,Address next_,Address obs_,Address final_,Address reward_,
 Address flags_){
@LAYOUT@

 const float*state=(const float*)state_; const float*action=(const float*)action_;
 F a[NA];
 for(int i=0;i<NA;++i){
  const F x=ROW(action,NA,i); F y=SELECT(x+F(1.0f),F(-1.0f),x); y=SELECT(F(1.0f)-y,F(1.0f),y);
  a[i]=y; AT(clipped,i)=y; AT(inside,i)=(x==y)?F(1.0f):F(0.0f);
 }
 for(int i=0;i<NQ;++i)AT(Q,i)=ROW(state,NS,i);
 for(int i=0;i<ND;++i)AT(D,i)=ROW(state,NS,NQ+i);
 @ACTUATE@
 F L[NH];
 for(int s=0;s<substeps;++s){
  const F*q=Q+s*NQ*STRIDE; const F*qd=D+s*ND*STRIDE; F*next_q=Q+(s+1)*NQ*STRIDE; F*next_qd=D+(s+1)*ND*STRIDE; F*qdd=A+s*ND*STRIDE;
  if(s%interval==0){
   @MASS@
   F*stored=LL+(s/interval)*NH*STRIDE; for(int i=0;i<NH;++i)AT(stored,i)=L[i];
  }
  F X[6*NB+1],P[POSE*NB+1]; for(int i=0;i<6*NB;++i)X[i]=F(0.0f);
  @SUBSTEP@
 }
 const F*q0=Q; const F*d0=D; const F*q1=Q+substeps*NQ*STRIDE; const F*d1=D+substeps*ND*STRIDE; F ob[NO],rw,margin;
 @FINISH@
 F extent=F(0.0f); for(int i=0;i<NQ;++i)extent+=AT(q1,i)*AT(q1,i); for(int i=0;i<ND;++i)extent+=AT(d1,i)*AT(d1,i);
 float*next=(float*)next_; float*obs=(float*)obs_; float*final_obs=(float*)final_; float*reward=(float*)reward_;
 unsigned char*flags=(unsigned char*)flags_;
 F result=F(1.0f);
 LANES{
  const bool bad=!(LANE(extent)<EXTENT); const bool terminated=bad||LANE(margin)<0.0f;
  const int count=limit>0?steps[e]+1:0; const bool truncated=limit>0&&!terminated&&count>=limit;
  const bool done=limit>0&&(terminated||truncated);
  LANE(result)=bad?-1.0f:done?0.0f:1.0f;
  flags[e]=terminated; flags[E+e]=truncated; reward[e]=bad?0.0f:LANE(rw); exploded[e]+=bad;
  const int row=done?(int)((e+(long long)E*resets[e])%pool_rows):0;
  for(int i=0;i<NO;++i){
   const float v=bad?0.0f:LANE(ob[i]);
   final_obs[(size_t)e*NO+i]=v; obs[(size_t)e*NO+i]=done?pool_obs[(size_t)row*NO+i]:v;
  }
  for(int i=0;i<NQ;++i)next[(size_t)e*NS+i]=done?pool[(size_t)row*NS+i]:LANE(AT(q1,i));
  for(int i=0;i<ND;++i)next[(size_t)e*NS+NQ+i]=done?pool[(size_t)row*NS+NQ+i]:LANE(AT(d1,i));
  if(limit>0){steps[e]=done?0:count; resets[e]+=done;}
 }
 AT(outcome,0)=result;
}
};
Body::run(thread,config_,trajectory_,p0,p1,p2,p3,p4,p5,p6);

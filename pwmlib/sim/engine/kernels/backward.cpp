// Backward: the substeps in reverse over the stored trajectory. A gradient that nobody asks for has address 0.
static CUDA_CALLABLE NOINLINE void run(
 int thread,Address config_,Address trajectory_,Address g_next_,Address g_obs_,Address g_final_,Address g_reward_,Address g_state_,
 Address g_action_){
@LAYOUT@

 const float*g_next=(const float*)g_next_; const float*g_obs=(const float*)g_obs_; const float*g_final=(const float*)g_final_;
 const float*g_reward=(const float*)g_reward_;
 F gq[NQ],gd[ND],gq0[NQ],gd0[ND],gu[ND],gactivation[NM+1],ga[NA],gob[NO],grw[1],a[NA],gH[NH],L[NH];
 const F result=AT(outcome,0),alive=SELECT(result,F(0.0f),result);
 for(int i=0;i<NA;++i){a[i]=AT(clipped,i); ga[i]=F(0.0f);}
 for(int i=0;i<NQ;++i){gq[i]=g_next?ROW(g_next,NS,i)*alive:F(0.0f); gq0[i]=F(0.0f);}
 for(int i=0;i<ND;++i){gd[i]=g_next?ROW(g_next,NS,NQ+i)*alive:F(0.0f); gd0[i]=F(0.0f); gu[i]=F(0.0f);}
 for(int i=0;i<NM;++i)gactivation[i]=F(0.0f);
 for(int i=0;i<NO;++i)gob[i]=(g_obs?ROW(g_obs,NO,i)*alive:F(0.0f))+(g_final?ROW(g_final,NO,i):F(0.0f));
 grw[0]=g_reward?ROW(g_reward,1,0):F(0.0f);
 for(int i=0;i<NH;++i)gH[i]=F(0.0f);
 {
 const F*q0=Q; const F*d0=D; const F*q1=Q+substeps*NQ*STRIDE; const F*d1=D+substeps*ND*STRIDE;
 @FINISH_ADJOINT@
 }
 for(int s=substeps-1;s>=0;--s){
  const F*q=Q+s*NQ*STRIDE; const F*qd=D+s*ND*STRIDE; const F*qdd=A+s*ND*STRIDE;
  if(s==substeps-1||(s+1)%interval==0){const F*stored=LL+(s/interval)*NH*STRIDE; for(int i=0;i<NH;++i)L[i]=AT(stored,i);}
  F X[6*NB+1],P[POSE*NB+1],GX[6*NB+1],GP[POSE*NB+1];
  for(int i=0;i<6*NB;++i)X[i]=F(0.0f); for(int i=0;i<POSE*NB;++i)GP[i]=F(0.0f);
  @SUBSTEP_ADJOINT@
  if(s%interval==0){
   @MASS_ADJOINT@
   for(int i=0;i<NH;++i)gH[i]=F(0.0f);
  }
 }
 @ACTUATE_ADJOINT@
 F zero=F(0.0f);
 for(int i=0;i<NQ;++i){gq[i]+=gq0[i]; zero+=gq[i]*F(0.0f);}
 for(int i=0;i<ND;++i){gd[i]+=gd0[i]; zero+=gd[i]*F(0.0f);}
 for(int i=0;i<NA;++i){ga[i]=ga[i]*AT(inside,i); zero+=ga[i]*F(0.0f);}
 float*g_state=(float*)g_state_; float*g_action=(float*)g_action_;
 LANES{
  const bool sound=!(LANE(result)<0.0f),bad=!sound||!(LANE(zero)==0.0f); dropped[e]+=sound&&bad;
  for(int i=0;i<NQ;++i)g_state[(size_t)e*NS+i]=bad?0.0f:LANE(gq[i]);
  for(int i=0;i<ND;++i)g_state[(size_t)e*NS+NQ+i]=bad?0.0f:LANE(gd[i]);
  for(int i=0;i<NA;++i)g_action[(size_t)e*NA+i]=bad?0.0f:LANE(ga[i]);
 }
}
};
Body::run(thread,config_,trajectory_,p0,p1,p2,p3,p4,p5);
